"""Cleaning examples: what is repaired, what is refused, each with its reason. Knows nothing of files.

Order matters: text is cleaned first, so that a turn of nothing but invisible characters counts as empty; then the
order of turns is put right.
"""

import re
import unicodedata
from collections.abc import Sequence

from danlu.data.examples import Example, Kind, Message, RowError

REMOVED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f"  # controls
    "\u200b\u2060\ufeff\u180e\u00ad"  # invisible; joiners (U+200C/D) stay: emoji and Persian need them
    "\u202a-\u202e\u2066-\u2069"  # direction overrides
    "\ud800-\udfff\ufffe\uffff]"
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+"  # invisible tags, unless a flag's
)
LINE_ENDS = re.compile("\r\n?|[\x85\u2028\u2029]")
KINDS = (
    (re.compile("\x00"), "NUL characters removed"),
    (re.compile("[\ud800-\udfff]"), "broken characters (lone surrogates) removed"),
    (re.compile("[\u202a-\u202e\u2066-\u2069]"), "text direction overrides removed"),
    (re.compile("[\u200b\u2060\ufeff\u180e\u00ad\U000e0000-\U000e007f]"), "invisible characters removed"),
    (re.compile("[\x01-\x1f\x7f-\x9f\ufffe\uffff]"), "control characters removed"),
)
SPECIAL = re.compile(r"<\|[A-Za-z_0-9▁]{2,40}\|>|<｜[^<>｜\s]{1,40}｜>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|eod)>")
"""Text that tokenizers read as their control tokens: trained on, it would end turns or forge them."""
WRAPPER = r"#{2,4}\s*(?:Instruction|Input|Response|Output|Answer|Question|User|Assistant|Human|指令|输入|输出|回答|问题)\s*[:：]"
LEADING = re.compile(
    r"\s*(?:Below is an instruction that describes a task[^\n]{0,200}\n+)?(?:\s*" + WRAPPER + r")+\s*",
    re.IGNORECASE,
)
TRAILING = re.compile(r"(?:\s*" + WRAPPER + r")+\s*\Z", re.IGNORECASE)
PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_一-鿿][\w.\- 一-鿿]{0,40}?)\s*\}\}")


def clean_text(text: str, fixes: list[str]) -> str:
    """Return `text` without control characters, template debris and special tokens, in NFC; name each change in `fixes`."""
    if not text.isprintable() and (REMOVED.search(text) or LINE_ENDS.search(text)):
        text = _without_controls(text, fixes)
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
        _add(fixes, "characters composed (Unicode NFC)")
    if ("<" in text or "[" in text) and SPECIAL.search(text):
        # Removing one may join the halves of another.
        while SPECIAL.search(text):
            text = SPECIAL.sub("", text)
        _add(fixes, "special tokens removed")
    if "##" in text:
        text = _without_wrappers(text, fixes)
    return text


def clean_example(example: Example, fixes: list[str]) -> Example:
    """Return the cleaned example; its `fixes` move to the list.

    Raises:
        RowError: it cannot be trained on.
    """
    if "fixes" in example:
        fixes += example.pop("fixes")
    if "text" in example:
        text = clean_text(example["text"], fixes)
        if not text or text.isspace():
            raise RowError("empty text")
        example["text"] = text
        return example
    if "chosen" in example:
        return _clean_preference(example, fixes)
    if "completion" in example:
        example["messages"] = _clean_prompt(example["messages"], fixes)
        example["completion"] = _clean_answer(example["completion"], "completion", example["messages"], fixes)
        return example
    if "answer" in example:
        example["messages"] = _clean_prompt(example["messages"], fixes)
        example["answer"] = clean_text(example["answer"], fixes) if example["answer"] is not None else None
        return example
    flags = example.get("train_on")
    messages, flags = clean_turns(example["messages"], flags, fixes)
    if not any(message["role"] == "assistant" for message in messages):
        raise RowError("no answer: no assistant turn")
    while messages[-1]["role"] != "assistant":
        role = messages.pop()["role"]
        if flags:
            flags.pop()
        _add(fixes, f"{role} turn after the last answer removed")
    if messages[0]["role"] == "assistant" or not any(message["role"] in ("user", "tool") for message in messages):
        raise RowError("no prompt: no user turn")
    example["messages"] = messages
    if flags is not None:
        if not any(flags):
            raise RowError("no turn is trained on: every loss weight is 0")
        example["train_on"] = flags
    return example


def clean_turns(
    messages: Sequence[Message], flags: Sequence[float] | None, fixes: list[str], *, previous: str = ""
) -> tuple[list[Message], list[float] | None]:
    """Return the turns with clean text and in an order that chat templates take, and their flags.

    `previous` is the role of the turn before the first one.

    Raises:
        RowError: a turn is empty, or stands where no repair can put it right.
    """
    kept: list[Message] = []
    kept_flags: list[float] = []
    for position, message in enumerate(messages):
        role, content = message["role"], clean_text(message["content"], fixes)
        message["content"] = content
        if not content or content.isspace():
            if role in ("system", "developer"):
                _add(fixes, "empty system message removed")
                continue
            if not message.get("tool_calls"):
                raise RowError("empty answer" if role == "assistant" else "empty prompt" if role == "user" else f"empty {role} turn")
        if role in ("system", "developer"):
            if previous not in ("", "system"):
                raise RowError("system message in the middle of the conversation")
            role = "system"
        elif role == "assistant" and previous in ("", "system"):
            _add(fixes, "leading assistant turn removed")
            continue
        elif role == "tool" and previous not in ("assistant", "tool"):
            raise RowError("tool turn that no assistant turn called for")
        flag = flags[position] if flags is not None else True
        if kept and role == previous and role != "tool" and not message.get("tool_calls") and not kept[-1].get("tool_calls"):
            kept[-1] = kept[-1] | {"content": f"{kept[-1]['content']}\n\n{content}"}
            kept_flags[-1] = min(kept_flags[-1], flag)
            _add(fixes, f"consecutive {role} turns joined")
            continue
        kept.append(message)
        kept_flags.append(flag)
        previous = role
    if not kept:
        raise RowError("no prompt: no user turn")
    return kept, kept_flags if flags is not None else None


def add_system(example: Example, system: str) -> None:
    """Put a system message before the turns of an example that has none."""
    if example["messages"][0]["role"] not in ("system", "developer"):
        example["messages"].insert(0, {"role": "system", "content": system})
        if "train_on" in example:
            example["train_on"].insert(0, False)


def placeholders(text: str) -> list[str]:
    """Names of unfilled template places such as {{name}} in `text`."""
    return PLACEHOLDER.findall(text) if "{{" in text else []


def as_kind(example: Example, kind: Kind) -> Example:
    """The example as one of `kind`: a conversation that ends with its wanted answer, or a prompt with its answer as reference.

    Raises:
        RowError: it has no wanted answer.
    """
    if kind == "messages" and ("chosen" in example or "completion" in example):
        if example.get("label") is False:
            raise RowError("marked as an undesirable answer (label: false)")
        return _kept(example) | {"messages": example["messages"] + example.get("chosen", example.get("completion"))}
    if kind == "prompt" and "answer" not in example:
        messages, answer = example["messages"], example.get("chosen")
        if not answer:
            begin = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=len(messages))
            messages, answer = messages[:begin], messages[begin:]
        return _kept(example) | {"messages": messages, "answer": answer[-1]["content"] if answer else None, "columns": {}}
    return example


def _kept(example: Example) -> Example:
    return {key: example[key] for key in ("line", "tools", "fixes") if key in example}


def _clean_preference(example: Example, fixes: list[str]) -> Example:
    prompt = _clean_prompt(example["messages"], fixes)
    for key in ("chosen", "rejected"):
        example[key] = _clean_answer(example[key], key, prompt, fixes)
    if example["chosen"] == example["rejected"]:
        raise RowError("chosen and rejected are the same")
    example["messages"] = prompt
    return example


def _clean_prompt(messages: Sequence[Message], fixes: list[str]) -> list[Message]:
    prompt, _ = clean_turns(messages, None, fixes)
    if prompt[-1]["role"] not in ("user", "tool"):
        raise RowError("the prompt does not end with a user turn")
    return prompt


def _clean_answer(messages: Sequence[Message], key: str, prompt: Sequence[Message], fixes: list[str]) -> list[Message]:
    turns, _ = clean_turns(messages, None, fixes, previous=prompt[-1]["role"])
    while turns and turns[-1]["role"] != "assistant":
        _add(fixes, f"{turns.pop()['role']} turn after the last answer removed")
    if not turns or turns[0]["role"] not in ("assistant", "tool"):
        raise RowError(f"no answer in {key!r}")
    return turns


def _without_controls(text: str, fixes: list[str]) -> str:
    if LINE_ENDS.search(text):
        text = LINE_ENDS.sub("\n", text)
        _add(fixes, "line ends made \\n")
    if REMOVED.search(text):
        removed = "".join(REMOVED.findall(text))
        for pattern, name in KINDS:
            if pattern.search(removed):
                _add(fixes, name)
        text = REMOVED.sub("", text)
    return text


def _without_wrappers(text: str, fixes: list[str]) -> str:
    found = False
    while match := LEADING.match(text):
        text, found = text[match.end() :], True
    if match := TRAILING.search(text):
        text, found = text[: match.start()], True
    if found:
        _add(fixes, "prompt template wrappers (### Instruction:, ### Response:) removed")
    return text


def _add(fixes: list[str], fix: str) -> None:
    if fix not in fixes:
        fixes.append(fix)
