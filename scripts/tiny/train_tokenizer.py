"""Train the tokenizer of danlu/tiny: byte-level BPE with 8,000 tokens, shared evenly by Chinese and English.

The pre-tokenizer is the Qwen2 pattern, character for character, so that llama.cpp can use its `qwen2` pre-tokenizer. It
isolates digits. There is no normaliser: every text decodes to itself.
"""

import argparse
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = [END_OF_TEXT, IM_START, IM_END]
MODEL_MAX_LENGTH = 1024
BYTES_PER_LANGUAGE = 8_000_000
MAX_SOURCE_SHARE = 0.4
MAX_TOKEN_BYTES = 15  # five Chinese characters: longer tokens would be stock phrases of one source

QWEN2_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# The mask of `return_assistant_tokens_mask` covers what the model must write itself: the content and its <|im_end|>.
CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' %}
{%- generation %}
{{- message.content or '' }}
{%- for call in message.tool_calls or [] %}
{{- '\\n<tool_call>\\n' + ((call.function or call) | tojson) + '\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>' }}
{%- endgeneration %}
{%- else %}
{{- (message.content or '') + '<|im_end|>' }}
{%- endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

LOSSLESS_PROBES = [
    "Hello,  world!\tTabs\t\tand   spaces \n\n\r\n end ",
    "你好，世界！今天 25°C，价格￥1,234.50。",
    "👩‍👩‍👧‍👦🏳️‍🌈 e\u0301 \u00e9 ﬁ ½ Ⅷ",
    "한국어 العربية हिन्दी ไทย 𠮷野家 龘",
    "\x00\x01\x7f\u200b\ufeff\ufffd",
    "def f(x):\n\treturn x ** 2  # 注释\n",
    "don't I'LL we'Ve",
    "",
    " ",
    "\n",
]


def read_rows(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def row_to_texts(row: dict) -> list[str]:
    return [row["text"]] if "text" in row else [message["content"] for message in row["messages"]]


def rows_of(folder: Path, kind: str, *, validation: bool = False) -> Iterator[dict]:
    """Yield the rows of every `pretrain*.jsonl` or `chat*.jsonl` file, training or validation ones."""
    for path in sorted(folder.glob(f"{kind}*.jsonl")):
        if (".validation" in path.name) == validation:
            yield from read_rows(path)


def sample_balanced(folder: Path) -> dict[str, list[str]]:
    """Return training texts by language, at most `BYTES_PER_LANGUAGE` each and no source over `MAX_SOURCE_SHARE` of it."""
    texts: dict[str, list[str]] = defaultdict(list)
    num_bytes: Counter = Counter()
    for kind in ("pretrain", "chat"):
        for row in rows_of(folder, kind):
            source = row["source"]
            language = source[:2]
            if num_bytes[language] >= BYTES_PER_LANGUAGE or num_bytes[source] >= MAX_SOURCE_SHARE * BYTES_PER_LANGUAGE:
                continue
            for text in row_to_texts(row):
                texts[language].append(text)
                num_bytes[language] += len(text.encode())
                num_bytes[source] += len(text.encode())
    return texts


def build_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def train_tokenizer(texts: dict[str, list[str]], vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer with exactly `vocab_size` tokens; the special tokens have the first ids."""
    tokenizer = build_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=MAX_TOKEN_BYTES,
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for language in sorted(texts) for text in texts[language]), trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[IM_START],
        model_max_length=MODEL_MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save with the chat template inside tokenizer_config.json, under a class name that every transformers version has."""
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.pop("backend", None)
    if isinstance(config.get("extra_special_tokens"), list):  # transformers 4 fails on a list under this name
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def check_lossless(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> None:
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        decoded = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if decoded != text:
            raise ValueError(f"the tokenizer is not lossless: {text!r} became {decoded!r}")


def check_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise `ValueError` unless the template renders ChatML and masks exactly the assistant turns."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "你好！有什么可以帮您？"},
        {"role": "tool", "content": '{"temperature": 21}'},
        {"role": "assistant", "content": "It is 21 degrees."},
    ]
    expected = "".join(f"{IM_START}{m['role']}\n{m['content']}{IM_END}\n" for m in messages)
    if tokenizer.apply_chat_template(messages, tokenize=False) != expected:
        raise ValueError("the chat template does not render ChatML")
    if tokenizer.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True) != "".join(
        [*(f"{IM_START}{m['role']}\n{m['content']}{IM_END}\n" for m in messages[:2]), f"{IM_START}assistant\n"]
    ):
        raise ValueError("the generation prompt is wrong")
    encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    masked = [token for token, is_assistant in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if is_assistant]
    wanted = "".join(m["content"] + IM_END for m in messages if m["role"] == "assistant")
    if tokenizer.decode(masked, skip_special_tokens=False) != wanted:
        raise ValueError(f"the assistant mask covers {tokenizer.decode(masked)!r}")


def report_compression(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Print characters and bytes per token on held-out documents, by language."""
    num_chars, num_bytes, num_tokens = Counter(), Counter(), Counter()
    for row in rows_of(folder, "pretrain", validation=True):
        language = row["source"][:2]
        num_chars[language] += len(row["text"])
        num_bytes[language] += len(row["text"].encode())
        num_tokens[language] += len(tokenizer(row["text"])["input_ids"])
    for language in sorted(num_tokens):
        tokens = num_tokens[language]
        print(f"held-out {language}: {num_chars[language] / tokens:.2f} characters/token, {num_bytes[language] / tokens:.2f} bytes/token ({tokens} tokens)")


def report_counts(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Print documents, chats and tokens per source, and write them to tokens.json."""
    counts: dict[str, Counter] = {"pretrain": Counter(), "chat": Counter()}
    num_rows: dict[str, Counter] = {"pretrain": Counter(), "chat": Counter()}
    for kind in counts:
        rows = list(rows_of(folder, kind))
        texts = [row["text"] + END_OF_TEXT if kind == "pretrain" else tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in rows]
        for start in range(0, len(texts), 2_000):
            batch = tokenizer(texts[start : start + 2_000], verbose=False)["input_ids"]
            for row, ids in zip(rows[start : start + 2_000], batch, strict=True):
                for name in (row["source"], row["source"][:2]):
                    counts[kind][name] += len(ids)
                    num_rows[kind][name] += 1
    summary = {kind: {name: {"rows": num_rows[kind][name], "tokens": tokens} for name, tokens in sorted(counts[kind].items())} for kind in counts}
    (folder / "tokens.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    for kind, sources in summary.items():
        for name, facts in sources.items():
            print(f"{kind:9} {name:20} {facts['rows']:7} rows {facts['tokens']:9} tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, default=Path("build/tiny"), help="folder written by build_corpus.py")
    parser.add_argument("--out", type=Path, default=Path("build/tiny/tokenizer"), help="tokenizer folder to write")
    parser.add_argument("--vocab-size", type=int, default=8_000, help="tokens in all, special tokens included")
    arguments = parser.parse_args()
    save_tokenizer(train_tokenizer(sample_balanced(arguments.corpus), arguments.vocab_size), arguments.out)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(arguments.out)
    if len(tokenizer) != arguments.vocab_size:
        raise ValueError(f"the vocabulary holds {len(tokenizer)} tokens, not {arguments.vocab_size}")
    held_out = [text for name in ("pretrain", "chat") for row in rows_of(arguments.corpus, name, validation=True) for text in row_to_texts(row)]
    check_lossless(tokenizer, LOSSLESS_PROBES + held_out)
    check_chat_template(tokenizer)
    report_compression(tokenizer, arguments.corpus)
    report_counts(tokenizer, arguments.corpus)


if __name__ == "__main__":
    main()
