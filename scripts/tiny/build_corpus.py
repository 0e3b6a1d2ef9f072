"""Build the pretraining documents and chat examples of danlu/tiny from the development data.

It reads ../shared/data and writes JSON lines; it knows nothing about tokens or models. The data never enters the repository.
Every row carries its `source`, whose first two letters are its language, so that the trainer can balance the mix.
The split follows a hash of the content: a dialogue that is held out of the chat rows is held out of the documents too.
"""

import argparse
import gzip
import hashlib
import html
import json
import re
import unicodedata
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import yaml

Messages = list[dict[str, str]]
Exchange = tuple[str, str]

VALIDATION_ONE_IN = 200
MAX_ROW_CHARS = 20_000
BOOK_CAP_BYTES = 6_000_000
POETRY_CAP_BYTES = 1_500_000
MAX_ZH_COMPLETION_CHARS = 300
MAX_EN_COMPLETION_CHARS = 600

LICENCES = {
    "en_sgd_dialogues": "CC BY-SA 4.0",
    "en_standardebooks": "CC0-1.0 / US public domain",
    "en_roleplay": "MIT (GPT-4 outputs)",
    "en_seed_tasks": "Apache-2.0",
    "en_chatterbot": "BSD-3-Clause",
    "en_identity": "Apache-2.0 (repo); mixed upstream",
    "zh_identity": "Apache-2.0 (repo); mixed upstream",
    "zh_chatterbot": "BSD-3-Clause",
    "zh_howtocook": "Unlicense",
    "zh_linux_command": "MIT",
    "zh_react": "CC BY 4.0",
    "zh_vue": "CC BY 4.0",
    "zh_d2l": "Apache-2.0",
    "zh_poetry": "MIT",
    "zh_crosswoz": "Apache-2.0",
    "zh_attractions": "Apache-2.0",
    "zh_cmtmedqa": "Apache-2.0 repo",
    "zh_medicalgpt": "Apache-2.0 repo (ShareGPT/other origin)",
    "zh_tigerbot": "Apache-2.0",
}

# Share-alike documents (pingcap, OI-wiki) stay out: there is enough Chinese without them.
DOC_SOURCES = {
    "Anduin2017/HowToCook": "zh_howtocook",
    "jaywcjlove/linux-command": "zh_linux_command",
    "reactjs/zh-hans.react.dev": "zh_react",
    "vuejs-translations/docs-zh-cn": "zh_vue",
    "d2l-ai/d2l-zh": "zh_d2l",
}

# Simplest prose first; books after the cap is reached are left out.
BOOKS = (
    "aesop_fables",
    "the-wonderful-wizard-of-oz",
    "the-marvelous-land-of-oz",
    "ozma-of-oz",
    "alices-adventures",
    "pollyanna",
    "the-railway-children",
    "five-children-and-it",
    "a-little-princess",
    "the-secret-garden",
    "peter-and-wendy",
    "the-wind-in-the-willows",
    "the-jungle-book",
    "anne-of-green-gables",
    "little-women",
    "a-christmas-carol",
    "the-call-of-the-wild",
    "the-adventures-of-sherlock-holmes",
)
# Simplified Chinese and readable without notes comes first; the song lyrics fill the rest of the cap.
POETRY_FIRST = ("水墨唐诗", "唐诗三百首", "纳兰性德", "蒙学", "论语")
CHATTERBOT = {
    "english": ("greetings", "conversations", "food", "science", "history", "ai", "computers", "health", "emotion", "botprofile"),
    "chinese": ("greetings", "conversations"),
}
IDENTITY_NAMES = {"en": ("Danlu Tiny", "the Danlu project"), "zh": ("丹炉小模型", "丹炉项目")}

CONTACT = re.compile(
    r"[\w.+-]+@[\w-]+\.\w+|(?<!\d)1[3-9]\d{9}(?!\d)|(?<!\d)\(?0?\d{2,4}\)?[- ]\d{3,4}[- ]?\d{4}(?!\d)|(?<!\d)(?:400|800)-?\d{3,4}-?\d{3,4}"
    r"|(?:QQ|微信|电话|热线)\D{0,4}\d{5,}",
    re.IGNORECASE,
)
OFFENSIVE = re.compile(
    r"\b(?:nigg\w+|faggots?|retards?|retarded|chinks?|kikes?|spics?|fuck\w*|cunts?|whores?|bitch\w*|shit\w*)\b|傻逼|操你|他妈的|婊子|贱人|支那|狗娘养",
    re.IGNORECASE,
)
SEXUAL = re.compile(
    r"阳痿|早泄|性交|性生活|性欲|(?<=男)性功能|性功能(?=障碍|减退|下降|低下)|性爱|同房|做爱|手淫|自慰|勃起|射精|阴茎|阴道|龟头|包皮|壮阳|肛交|嫖|\b(?:porn|sexy|masturbat\w+)\b"
)
OTHER_BOTS = re.compile(r"chatter ?bot|salvius|\balice\b|\beliza\b|gunther|commander data|\bhal ?9000\b|python之禅", re.IGNORECASE)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]")
TRADITIONAL = re.compile(r"[來時為無見風雲處與長還聲歸問東馬門開間國學會過說語書樂夢從萬葉飛應當對將爲獨盡難獻經陽鳥魚龍]")
BLANK_IN_CHINESE = re.compile(r"(?<=[\u3001-\u9fff，。！？：；（）]) +(?=[\u3001-\u9fff，。！？：；（）])")
CHINESE = re.compile(r"[\u3400-\u9fff]")


class Rejected(ValueError):
    """A row that the corpus does not take; the message is the reason counted in sources.json."""


@dataclass
class Corpus:
    """The kept rows of every source with a tally of what was dropped and why."""

    documents: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    chats: dict[str, list[tuple[str, Messages]]] = field(default_factory=lambda: defaultdict(list))
    num_read: Counter = field(default_factory=Counter)
    dropped: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    seen: set[str] = field(default_factory=set)

    def add_document(self, source: str, text: str, key: str | None = None) -> None:
        """Keep one document; `key` decides its split and defaults to the text."""
        try:
            text = clean_text(text)
            check_text(text)
            self._check_new("document", text)
        except Rejected as reason:
            self.drop(source, f"document: {reason}")
        else:
            self.documents[source].append((key or text, text))

    def add_chat(self, source: str, exchanges: Iterable[Exchange], key: str | None = None) -> None:
        """Keep one dialogue of (prompt, completion) exchanges."""
        try:
            messages = exchanges_to_messages(exchanges)
            self._check_new("chat", json.dumps(messages, ensure_ascii=False))
        except Rejected as reason:
            self.drop(source, f"chat: {reason}")
        else:
            self.chats[source].append((key or messages_to_text(source, messages), messages))

    def drop(self, source: str, reason: str) -> None:
        self.dropped[source][reason] += 1

    def _check_new(self, kind: str, content: str) -> None:
        digest = f"{kind}:{hash_content(content)}"
        if digest in self.seen:
            raise Rejected("duplicate")
        self.seen.add(digest)


def hash_content(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def is_validation(key: str) -> bool:
    return int(hash_content(key)[:8], 16) % VALIDATION_ONE_IN == 0


def clean_text(text: str) -> str:
    """Return NFC text without control characters, trailing blanks or runs of empty lines."""
    text = unicodedata.normalize("NFC", html.unescape(text)).replace("\r\n", "\n").replace("\r", "\n")
    text = CONTROL.sub("", text).replace("\u00a0", " ").replace("\u3000", " ")
    text = BLANK_IN_CHINESE.sub("", re.sub(r"[ \t]+\n", "\n", text))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def check_text(text: str) -> None:
    """Raise `Rejected` for text that no source should bring."""
    if not text:
        raise Rejected("empty")
    if len(text) > MAX_ROW_CHARS:
        raise Rejected("too long")
    if "\ufffd" in text:
        raise Rejected("broken encoding")
    if CONTACT.search(text):
        raise Rejected("e-mail or phone number")
    if OFFENSIVE.search(text):
        raise Rejected("offensive")
    if SEXUAL.search(text):
        raise Rejected("sexual")


def exchanges_to_messages(exchanges: Iterable[Exchange]) -> Messages:
    """Return alternating user and assistant messages; raise `Rejected` if an exchange is unfit."""
    messages: Messages = []
    for prompt, completion in exchanges:
        for role, content in (("user", prompt), ("assistant", completion)):
            content = clean_text(content)
            check_text(content)
            messages.append({"role": role, "content": content})
    if not messages:
        raise Rejected("no exchange left")
    return messages


def messages_to_text(source: str, messages: Messages) -> str:
    """Return a dialogue as plain lines, for pretraining."""
    names = {"user": "用户：", "assistant": "助手："} if source.startswith("zh") else {"user": "User: ", "assistant": "Assistant: "}
    return "\n".join(names[message["role"]] + message["content"] for message in messages)


def turns_to_exchanges(turns: Iterable[tuple[bool, str]]) -> list[Exchange]:
    """Pair (is_user, content) turns, joining neighbours of one speaker; what has no partner is left out."""
    joined: list[tuple[bool, str]] = []
    for is_user, content in turns:
        if joined and joined[-1][0] == is_user:
            joined[-1] = (is_user, f"{joined[-1][1]} {content}")
        elif joined or is_user:
            joined.append((is_user, content))
    return [(joined[i][1], joined[i + 1][1]) for i in range(0, len(joined) - 1, 2)]


def has_contact(exchange: Exchange) -> bool:
    return any(CONTACT.search(content) for content in exchange)


def read_jsonl(path: Path) -> Iterator[dict]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def pack_paragraphs(paragraphs: Iterable[str], min_chars: int = 1_500, max_chars: int = 3_000) -> Iterator[str]:
    """Join whole paragraphs into passages of `min_chars` to `max_chars`; a longer single paragraph stays whole."""
    passage: list[str] = []
    num_chars = 0
    for paragraph in paragraphs:
        if passage and (num_chars >= min_chars or num_chars + len(paragraph) > max_chars):
            yield "\n".join(passage)
            passage, num_chars = [], 0
        passage.append(paragraph)
        num_chars += len(paragraph)
    if passage:
        yield "\n".join(passage)


def add_dialogue(corpus: Corpus, source: str, turns: Iterable[tuple[bool, str]]) -> None:
    """Add one dialogue as chat and as a document, without the exchanges that hold contact data."""
    corpus.num_read[source] += 1
    exchanges = turns_to_exchanges(turns)
    kept = [exchange for exchange in exchanges if not has_contact(exchange)]
    for _ in range(len(exchanges) - len(kept)):
        corpus.drop(source, "exchange: e-mail or phone number")
    corpus.add_chat(source, kept)
    try:
        corpus.add_document(source, messages_to_text(source, exchanges_to_messages(kept)))
    except Rejected as reason:
        corpus.drop(source, f"document: {reason}")


def add_sgd(corpus: Corpus, data: Path) -> None:
    for row in read_jsonl(data / "corpus/en_sgd_dialogues.jsonl.gz"):
        turns = [(line.startswith("User: "), line.split(": ", 1)[-1]) for line in row["text"].split("\n")]
        add_dialogue(corpus, "en_sgd_dialogues", turns)


def add_crosswoz(corpus: Corpus, data: Path) -> None:
    with zipfile.ZipFile(data / "sft/travel/crosswoz_val_zh.json.zip") as archive:
        dialogues = json.loads(archive.read("val.json"))
    for dialogue in dialogues.values():
        add_dialogue(corpus, "zh_crosswoz", [(message["role"] == "usr", message["content"]) for message in dialogue["messages"]])


def add_attractions(corpus: Corpus, data: Path) -> None:
    for name, facts in json.loads((data / "sft/travel/crosswoz_attraction_db_zh.json").read_text(encoding="utf-8")):
        corpus.num_read["zh_attractions"] += 1
        corpus.add_document("zh_attractions", describe_attraction(name, facts))


def describe_attraction(name: str, facts: dict) -> str:
    """Return a few plain Chinese sentences that state the known fields of a sight."""
    sentences = [f"{name}是北京的一个景点，地址是{facts['地址']}。" if facts.get("地址") else f"{name}是北京的一个景点。"]
    if facts.get("地铁"):
        sentences.append(f"最近的地铁站是{facts['地铁'].replace('地铁站', '站')}。")
    if facts.get("门票") is not None:
        sentences.append(f"门票{facts['门票']}元。" if facts["门票"] else "门票免费。")
    if facts.get("游玩时间"):
        sentences.append(f"游玩大约需要{facts['游玩时间'].replace(' - ', '到')}。")
    if facts.get("评分"):
        sentences.append(f"游客给它的评分是{facts['评分']}分。")
    for kind in ("景点", "餐馆", "酒店"):
        places = (facts.get(f"周边{kind}") or [])[:4]
        if places:
            sentences.append(f"附近的{kind}有{'、'.join(places)}。")
    return "".join(sentences)


def add_books(corpus: Corpus, data: Path) -> None:
    source = "en_standardebooks"
    chapters: dict[str, list[str]] = defaultdict(list)
    for row in read_jsonl(data / "corpus/en_standardebooks.jsonl.gz"):
        corpus.num_read[source] += 1
        chapters[row["source"]].append(row["text"])
    num_bytes = 0
    for title in BOOKS:
        for book in sorted(name for name in chapters if title in name):
            for passage in book_to_passages(chapters.pop(book)):
                if not is_prose(passage):
                    corpus.drop(source, "document: verse, list or fragment")
                elif num_bytes < BOOK_CAP_BYTES:
                    corpus.add_document(source, passage)
                    num_bytes += len(passage.encode())
                else:
                    corpus.drop(source, "document: over the cap for books")
    corpus.dropped[source]["chapter: book not in the simple list"] = sum(map(len, chapters.values()))


def book_to_passages(chapters: list[str]) -> Iterator[str]:
    """Return passages in plain ASCII quotes, without introductions and chapter numbers."""
    for chapter in chapters:
        if re.match(r"(?:introduction|preface|endnotes|contents|dedication|foreword)\b", chapter, re.IGNORECASE):
            continue
        chapter = chapter.translate(str.maketrans("“”‘’", "\"\"''"))
        lines = [line.strip() for line in chapter.split("\n")]
        yield from pack_paragraphs(line for line in lines if line and not re.fullmatch(r"(?:chapter )?[IVXLC\d]+\.?", line, re.IGNORECASE))


def is_prose(passage: str) -> bool:
    """Tell whether most lines end like sentences and the passage is more than a heading."""
    lines = passage.split("\n")
    num_ended = sum(line.endswith((".", "!", "?", '"', "'", ":", "—")) for line in lines)
    return len(passage) >= 300 and num_ended >= 0.7 * len(lines) and len(passage) / len(lines) >= 60


def add_docs(corpus: Corpus, data: Path) -> None:
    seen_lines: set[str] = set()
    for name in ("zh_docs_ccby", "zh_docs_ccbysa"):
        for row in read_jsonl(data / f"corpus/{name}.jsonl.gz"):
            source = DOC_SOURCES.get(row["source"])
            if source is None:
                corpus.drop("zh_" + row["source"].split("/")[-1], "document: share-alike")
                continue
            corpus.num_read[source] += 1
            lines = [line for line in markdown_to_prose(row["text"]) if line not in seen_lines]
            seen_lines.update(lines)
            for passage in pack_paragraphs(lines, 600, 1_500):
                if len(CHINESE.findall(passage)) < 60:
                    corpus.drop(source, "document: too little prose")
                else:
                    corpus.add_document(source, passage)


def markdown_to_prose(text: str) -> Iterator[str]:
    """Yield the title and the Chinese prose lines of a Markdown page: no code, tables, math, tags or link lists."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"^[ \t]*(```+|~~~+).*?^[ \t]*\1[ \t]*$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\$\$.*?\$\$|<!--.*?-->|\{/\*.*?\*/\}", "", text, flags=re.DOTALL)
    is_title_open = True
    for line in text.split("\n"):
        is_heading = line.startswith(("#", "==="))
        line = strip_inline_markup(line)
        if is_heading:
            if is_title_open and len(CHINESE.findall(line)) >= 2:
                yield line
            is_title_open = False
        elif is_prose_line(line):
            yield line + "。" if CHINESE.match(line[-1]) else line


def strip_inline_markup(line: str) -> str:
    line = re.sub(r"\{#[\w-]+\}|:(?:label|width|eqlabel|begin_tab|end_tab)[:`].*", "", line)
    line = re.sub(r":cite\w*:`[^`]*`", "", line)
    line = re.sub(r":(?:num|eq)?ref:`[^`]*`", "前文", line)
    line = re.sub(r"!\[[^\]]*\]\([^)]*\)|!\S+\.(?:png|jpe?g|svg|gif)", "", line)
    line = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", line)
    line = re.sub(r"</?[A-Za-z][^<>]*>|https?://\S+", "", line)
    line = re.sub(r"^\s*(?:#+|>+|[-*+](?=\s)|=+)\s*", "", line)
    return re.sub(r"\*|__|`|\\(?=[<_])|（\s*）|[\[\]]", "", line).strip()


def is_prose_line(line: str) -> bool:
    """Tell whether a line is a Chinese sentence and not code, a table row, an option or a formula."""
    if len(line) < 10 or line.startswith(("|", "-", ":::", "author:", "{")) or line.endswith(("：", ":")) or "$" in line or "\\" in line:
        return False
    num_visible = sum(not character.isspace() for character in line)
    return len(CHINESE.findall(line)) >= 0.5 * num_visible and (len(line) >= 14 or line.endswith(("。", "！", "？", "；", "．")))


def add_poetry(corpus: Corpus, data: Path) -> None:
    source = "zh_poetry"
    rows = list(read_jsonl(data / "corpus/zh_poetry.jsonl.gz"))
    corpus.num_read[source] = len(rows)
    preferred = [row["text"] for row in rows if any(name in row["file"] for name in POETRY_FIRST)]
    songs = [row["text"] for row in rows if row["file"].startswith("宋词") and len(row["text"]) <= 150]
    corpus.dropped[source]["document: other collections or long"] = len(rows) - len(preferred) - len(songs)
    num_bytes = 0
    for text in preferred + sorted(songs, key=hash_content):
        if TRADITIONAL.search(text):
            corpus.drop(source, "document: traditional characters")
        elif re.search(r"[□{}\[\]]", text):
            corpus.drop(source, "document: gaps")
        elif num_bytes >= POETRY_CAP_BYTES:
            corpus.drop(source, "document: over the cap for poetry")
        else:
            for passage in pack_paragraphs(text.split("\n"), 600, 1_500):
                corpus.add_document(source, passage)
            num_bytes += len(text.encode())


def add_medical(corpus: Corpus, data: Path) -> None:
    folder = data / "sft/medical"
    for row in read_jsonl(folder / "tigerbot_medical_qa_6000_zh.jsonl"):
        exchange = strip_marker(row["instruction"]), strip_marker(row["output"])
        add_medical_dialogue(corpus, "zh_tigerbot", [exchange])
    for row in read_jsonl(folder / "medicalgpt_medical_sft_1K_zh.jsonl"):
        turns = [(turn["from"] == "human", turn["value"]) for turn in row["conversations"]]
        add_medical_dialogue(corpus, "zh_medicalgpt", turns_to_exchanges(turns))
    for row in json.loads((folder / "CMtMedQA_test_multiturn_zh.json").read_text(encoding="utf-8")):
        exchanges = [tuple(pair) for pair in row.get("history", ())] + [(row.get("instruction") or row["instruct"], row["output"])]
        add_medical_dialogue(corpus, "zh_cmtmedqa", exchanges)


def strip_marker(text: str) -> str:
    return re.sub(r"\s*###\s*(?:Instruction|Response|Input):\s*", "", text).strip()


def add_medical_dialogue(corpus: Corpus, source: str, exchanges: list[Exchange]) -> None:
    """Add a consultation in full as a document, and up to its first long completion as chat."""
    corpus.num_read[source] += 1
    exchanges = [(fix_start(prompt), fix_start(completion)) for prompt, completion in exchanges]
    if any(len(completion) < 8 for _, completion in exchanges):
        corpus.drop(source, "row: completion under 8 characters")
        return
    try:
        text = messages_to_text(source, exchanges_to_messages(exchanges))
    except Rejected as reason:
        corpus.drop(source, f"row: {reason}")
        return
    corpus.add_document(source, text)
    if not all(re.search(r"[，。！]", completion) for _, completion in exchanges):
        corpus.drop(source, "chat: completion is a list of terms")
        return
    short: list[Exchange] = []
    for exchange in exchanges:
        if len(exchange[1]) > MAX_ZH_COMPLETION_CHARS:
            break
        short.append(exchange)
    if short:
        corpus.add_chat(source, short, key=text)
    else:
        corpus.drop(source, "chat: completion too long")


def fix_start(text: str) -> str:
    """Drop stray punctuation at the start and turn doubled commas into one."""
    text = re.sub(r"^[\s，。,.、；：？！]+", "", text)
    return re.sub(r"([？。！?])，", r"\1", re.sub(r"，{2,}", "，", text)).strip()


def add_chatterbot(corpus: Corpus, data: Path) -> None:
    for language, topics in CHATTERBOT.items():
        source = f"{language[:2] if language == 'english' else 'zh'}_chatterbot"
        for topic in topics:
            path = data / f"sft/chat/chatterbot_{language}/{topic}.yml"
            for lines in yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]:
                corpus.num_read[source] += 1
                add_chatterbot_lines(corpus, source, topic, [polish_line(source, str(line)) for line in lines])


def add_chatterbot_lines(corpus: Corpus, source: str, topic: str, lines: list[str]) -> None:
    """Add a dialogue, or, for the question topics, one example per alternative completion."""
    if OTHER_BOTS.search("\n".join(lines)) or len(lines) > 14:
        corpus.drop(source, "row: names another bot or rambles")
    elif topic in ("greetings", "conversations", "health"):
        corpus.add_chat(source, turns_to_exchanges((i % 2 == 0, line) for i, line in enumerate(lines)))
    else:
        for completion in lines[1:]:
            if len(completion) < 12 or completion.endswith("?"):
                corpus.drop(source, "chat: fragment or counter-question")
            else:
                corpus.add_chat(source, [(lines[0], completion)])


def polish_line(source: str, line: str) -> str:
    """Capitalise English lines; give Chinese lines Chinese punctuation."""
    line = re.sub(r"\s+", " ", line).strip()
    if source.startswith("en"):
        return re.sub(r"\bi\b", "I", line[:1].upper() + line[1:])
    return re.sub(r"(?<![A-Za-z])([,.?!])", lambda match: "，。？！"[",.?!".index(match[1])], line).replace("， ", "，").replace("。 ", "。")


def add_instructions(corpus: Corpus, data: Path) -> None:
    for row in json.loads((data / "sft/gpteacher/roleplay-instruct.json").read_text(encoding="utf-8")):
        add_instruction(corpus, "en_roleplay", row["instruction"], row["input"], row["response"])
    for row in read_jsonl(data / "sft/self-instruct/seed_tasks.jsonl"):
        instance = row["instances"][0]
        add_instruction(corpus, "en_seed_tasks", row["instruction"], instance["input"], instance["output"])


def add_instruction(corpus: Corpus, source: str, instruction: str, context: str, completion: str) -> None:
    corpus.num_read[source] += 1
    prompt = f"{instruction}\n{context}".strip()
    if len(completion) > MAX_EN_COMPLETION_CHARS or len(prompt) > 1_000:
        corpus.drop(source, "chat: too long")
    elif re.search(r"<\w+>|\bdef \w+\(|#include|</|\{|\\", prompt + completion):
        corpus.drop(source, "chat: placeholder or code")
    elif CHINESE.search(prompt + completion):
        corpus.drop(source, "chat: mixed language")
    else:
        quotes = str.maketrans("“”‘’", "\"\"''")
        corpus.add_chat(source, [(prompt.translate(quotes), completion.translate(quotes))])


def add_identity(corpus: Corpus, data: Path) -> None:
    for row in json.loads((data / "sft/llamafactory/identity.json").read_text(encoding="utf-8")):
        language = "zh" if CHINESE.search(row["instruction"]) else "en"
        source = f"{language}_identity"
        corpus.num_read[source] += 1
        if re.search(r"代码|翻译|打分|煮咖啡|存储", row["output"]):
            corpus.drop(source, "chat: claims an ability the model lacks")
            continue
        name, author = IDENTITY_NAMES[language]
        completion = row["output"]
        for placeholder, value in (("{{name}}", name), ("{{author}}", author)):
            pattern = re.escape(placeholder) if language == "en" else rf" ?{re.escape(placeholder)} ?"
            completion = re.sub(pattern, value, completion)
        corpus.add_chat(source, [(row["instruction"], completion)])


def document_file(source: str) -> str:
    """File of a document source; the recipe weighs the two languages against each other."""
    return f"pretrain.{source[:2]}"


def chat_file(source: str) -> str:
    """File of a chat source; the recipe repeats the small ones and thins out the big one."""
    if source == "en_sgd_dialogues":
        return "chat.dialogue"
    return "chat.smalltalk" if source.endswith(("_identity", "_chatterbot")) else "chat"


def write_rows(rows: Iterable[tuple[str, dict]], out: Path, file_of: Callable[[str], str]) -> Counter:
    """Write shuffled rows to `<file>.jsonl` and `<file>.validation.jsonl`; return the number of rows in each by (source, split)."""
    num_rows: Counter = Counter()
    with ExitStack() as stack:
        files: dict[str, TextIO] = {}
        for key, row in sorted(rows, key=lambda item: hash_content(json.dumps(item[1], ensure_ascii=False))):
            split = "validation" if is_validation(key) else "train"
            name = file_of(row["source"]) + (".validation" if split == "validation" else "")
            if name not in files:
                files[name] = stack.enter_context((out / f"{name}.jsonl").open("w", encoding="utf-8"))
            files[name].write(json.dumps(row, ensure_ascii=False) + "\n")
            num_rows[row["source"], split] += 1
    return num_rows


def summarise(corpus: Corpus, num_documents: Counter, num_chats: Counter) -> dict[str, dict]:
    """Return the content of sources.json."""
    summary = {}
    for source in sorted({*corpus.documents, *corpus.chats, *corpus.dropped}):
        summary[source] = {
            "licence": LICENCES.get(source, "CC BY-SA (left out)"),
            "rows_read": corpus.num_read[source],
            "documents": num_documents[source, "train"],
            "documents_validation": num_documents[source, "validation"],
            "document_bytes": sum(len(text.encode()) for _, text in corpus.documents.get(source, ())),
            "chats": num_chats[source, "train"],
            "chats_validation": num_chats[source, "validation"],
            "chat_bytes": sum(len(m["content"].encode()) for _, messages in corpus.chats.get(source, ()) for m in messages),
            "dropped": dict(corpus.dropped[source].most_common()),
        }
    return summary


def build_corpus(data: Path, out: Path) -> dict[str, dict]:
    """Write the documents, the chat rows and sources.json to `out`; return the summary."""
    corpus = Corpus()
    for add in (add_sgd, add_books, add_docs, add_poetry, add_crosswoz, add_attractions, add_medical, add_chatterbot, add_instructions, add_identity):
        add(corpus, data)
    out.mkdir(parents=True, exist_ok=True)
    documents = ((key, {"text": text, "source": source}) for source, rows in corpus.documents.items() for key, text in rows)
    chats = ((key, {"messages": messages, "source": source}) for source, rows in corpus.chats.items() for key, messages in rows)
    summary = summarise(corpus, write_rows(documents, out, document_file), write_rows(chats, out, chat_file))
    (out / "sources.json").write_text(json.dumps(summary, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the development data")
    parser.add_argument("--out", type=Path, default=Path("build/tiny"), help="folder to write")
    arguments = parser.parse_args()
    for source, facts in build_corpus(arguments.data, arguments.out).items():
        documents, chats = (f"{facts[f'{kind}s']:6} {kind}s {facts[f'{kind}_bytes']:9} bytes" for kind in ("document", "chat"))
        print(f"{source:22} {documents}  {chats}  {facts['dropped']}")


if __name__ == "__main__":
    main()
