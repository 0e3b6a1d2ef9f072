"""How good is danlu/tiny as a language model? Held-out loss per byte, next to models that learn no meaning.

`python scripts/tiny/baseline.py [MODEL_FOLDER ...]` prints the table of the model card, and with --card writes it there. What is compared:

- uniform: every byte is equally likely, ln 256 = 5.545 nats per byte.
- byte n-gram and token n-gram: interpolated n-gram models over bytes, and over the tokens of danlu/tiny, trained on the same
  files as the model. p(w | h) = (c(hw) + b(h) p(w | h')) / (c(h) as continued + b(h)), h' being h without its first symbol. b(h) is the
  number of kept continuations of h plus the counts of those that were not kept: Witten-Bell smoothing where nothing was pruned.
  The n-grams seen most often are kept, as many as fit the size of the model's weights at 5 bytes each (a 4-byte hash and a 1-byte count
  is the least that such tables are stored in; we look up exact counts, which only helps the n-gram model). Of the orders tried, the one that is
  best on the held-out text is shown, which again favours it.

All are asked for the same text: documents without their first token, and the assistant's turns of conversations, given all before. Tokens that end a
turn or a document have to be predicted too, but add no bytes. A byte model reads each special token as one byte that text does not hold.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # documents are longer than the model reads at once: known

import numpy as np
import torch
from numpy.typing import NDArray

from danlu.bundled import FOLDER
from danlu.data.chat import ChatRenderer
from danlu.data.pack import EncodedExample
from danlu.files import read_jsonl
from danlu.models.load import load_model, load_tokenizer
from danlu.recipe.base import OBJECTIVES
from danlu.training.forward import score_examples

Symbols = NDArray[np.uint64]
Counts = NDArray[np.int64]

BYTES_PER_NGRAM = 5
BYTE_ORDERS, TOKEN_ORDERS = (4, 5, 6, 7), (2, 3, 4)
CHUNK_SYMBOLS = 8_000_000
MAX_SEQ_LEN = 512
SPECIAL_BYTES = {"<|endoftext|>": b"\x00", "<|im_start|>": b"\x01", "<|im_end|>": b"\x02"}
MARKS = ("<!-- measured -->", "<!-- /measured -->")
ROWS = ("documents, Chinese", "documents, English", "conversations, Chinese", "conversations, English")


@dataclass(frozen=True)
class HeldOut:
    """One held-out text as token ids and scored flags, and the bytes that the flags cover."""

    examples: list[EncodedExample]
    num_bytes: int


class NGramModel:
    """Interpolated n-gram model whose tables are pruned to the most frequent n-grams of all orders together."""

    def __init__(self, tables: Sequence[tuple[Symbols, Counts]], num_symbols: int) -> None:
        self.num_symbols, self.bits = num_symbols, max(1, (num_symbols - 1).bit_length())
        self.tables = list(tables)
        # Statistics of each context, from the kept n-grams alone (b also needs the context's own count, kept one order below).
        self.contexts = []
        for order, (keys, counts) in enumerate(self.tables, 1):
            contexts, start, kept_types = np.unique(keys >> np.uint64(self.bits), return_index=True, return_counts=True)
            kept = np.add.reduceat(counts, start) if len(counts) else counts
            total = kept if order == 1 else np.maximum(_look_up(self.tables[order - 2], contexts), kept)
            self.contexts.append((contexts, kept, kept_types + total - kept))

    @property
    def num_ngrams(self) -> int:
        """How many n-grams are stored."""
        return sum(len(keys) for keys, _ in self.tables)

    def nll(self, symbols: Symbols, start: int) -> NDArray[np.float64]:
        """Nats of each symbol from position `start`, given up to `order - 1` before it."""
        probability = np.full(len(symbols), 1 / self.num_symbols)
        keys = np.zeros(len(symbols), np.uint64)
        for n, (table, (contexts, kept, backoff)) in enumerate(zip(self.tables, self.contexts, strict=True), 1):
            before = np.zeros(len(symbols), np.uint64)
            before[1:] = keys[:-1]
            keys = symbols | (before << np.uint64(self.bits))
            number, weight = _look_up((contexts, kept), before), _look_up((contexts, backoff), before)
            found = _look_up(table, keys)
            is_known = number > 0
            is_known[: n - 1] = False  # the text has not that many symbols before
            probability[is_known] = (found[is_known] + weight[is_known] * probability[is_known]) / (number[is_known] + weight[is_known])
        return -np.log(probability[start:])


def count(chunks: Iterator[Symbols], num_symbols: int, order: int) -> list[tuple[Symbols, Counts]]:
    """Count the n-grams of every length up to `order`; the key of an n-gram is its symbols side by side, the last one lowest."""
    bits = max(1, (num_symbols - 1).bit_length())
    assert bits * order <= 64
    tables: list[tuple[Symbols, Counts]] = [(np.zeros(0, np.uint64), np.zeros(0, np.int64)) for _ in range(order)]
    for symbols in chunks:
        keys = np.zeros(len(symbols) + 1, np.uint64)
        for n in range(1, order + 1):
            keys = symbols[n - 1 :] | (keys[:-1] << np.uint64(bits))
            tables[n - 1] = _merged(tables[n - 1], *np.unique(keys, return_counts=True))
    return tables


def pruned(tables: Sequence[tuple[Symbols, Counts]], budget: int) -> list[tuple[Symbols, Counts]]:
    """Keep the `budget` most frequent n-grams; of those with the count at the limit, low orders first."""
    every = np.concatenate([counts for _, counts in tables])
    if len(every) <= budget:
        return list(tables)
    limit = np.partition(every, len(every) - budget)[len(every) - budget]
    room = budget - int(np.count_nonzero(every > limit))
    kept = []
    for keys, counts in tables:
        at_limit = np.flatnonzero(counts == limit)[:room]
        room -= len(at_limit)
        is_kept = counts > limit
        is_kept[at_limit] = True
        kept.append((keys[is_kept], counts[is_kept]))
    return kept


def _merged(table: tuple[Symbols, Counts], keys: Symbols, counts: Counts) -> tuple[Symbols, Counts]:
    every, inverse = np.unique(np.concatenate([table[0], keys]), return_inverse=True)
    total = np.zeros(len(every), np.int64)
    np.add.at(total, inverse, np.concatenate([table[1], counts]))
    return every, total


def _look_up(table: tuple[Symbols, Counts], keys: Symbols) -> Counts:
    known, counts = table
    if not len(known):
        return np.zeros(len(keys), np.int64)
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[place] == keys, counts[place], 0)


class Reader:
    """Token ids and bytes of rows, with one tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.renderer = ChatRenderer(load_tokenizer(folder))
        tokenizer = self.renderer.tokenizer
        self.num_tokens = len(tokenizer)
        special = {tokenizer.convert_tokens_to_ids(token): code for token, code in SPECIAL_BYTES.items()}
        self.token_bytes = [special.get(i) or token_to_bytes(tokenizer.convert_ids_to_tokens(i)) for i in range(self.num_tokens)]
        self.special = set(special)

    def encode(self, rows: Sequence[dict], max_seq_len: int = 10**9) -> list[EncodedExample]:
        """Rows of one kind, documents or conversations; conversations over `max_seq_len` tokens are left out."""
        objective = OBJECTIVES.parse("pretrain" if "text" in rows[0] else "sft")
        encoded = [block for blocks in objective.encode(rows, self.renderer, max_seq_len) for block in blocks]  # type: ignore[attr-defined]
        return [block for block in encoded if len(block.ids) <= max_seq_len]

    def bytes_of(self, ids: Sequence[int]) -> bytes:
        """Bytes of token ids, special tokens as one byte each."""
        return b"".join(self.token_bytes[i] for i in ids)

    def num_scored_bytes(self, example: EncodedExample) -> int:
        """Bytes of the scored tokens that are text."""
        return sum(len(self.token_bytes[i]) for i in example.ids[1:][example.mask[1:]] if int(i) not in self.special)


def token_to_bytes(token: str) -> bytes:
    """Bytes of a byte-level BPE token: its letters stand for bytes, shifted where a byte does not print (GPT-2's table)."""
    return bytes(_BYTE_OF[letter] for letter in token)


def _byte_letters() -> dict[str, int]:
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _byte_letters()


def training_rows(corpus: Path) -> Iterator[list[dict]]:
    """Batches of training rows, each of one kind."""
    for file in sorted([*corpus.glob("pretrain*.jsonl"), *corpus.glob("chat*.jsonl")]):
        if ".validation" in file.name:
            continue
        rows = list(read_jsonl(file))
        yield from (rows[start : start + 2000] for start in range(0, len(rows), 2000))


def held_out(corpus: Path, reader: Reader) -> dict[str, HeldOut]:
    """The validation rows by kind and language."""
    found = {}
    for kind, pattern in (("documents", "pretrain*.validation.jsonl"), ("conversations", "chat*.validation.jsonl")):
        rows = [row for file in sorted(corpus.glob(pattern)) for row in read_jsonl(file)]
        for code, language in (("zh", "Chinese"), ("en", "English")):
            chosen = [row for row in rows if row["source"].startswith(code)]
            if not chosen:
                raise ValueError(f"no held-out {kind} in {language} in {corpus}")
            examples = reader.encode(chosen, MAX_SEQ_LEN)
            found[f"{kind}, {language}"] = HeldOut(examples, sum(reader.num_scored_bytes(example) for example in examples))
    return found


def symbol_chunks(corpus: Path, reader: Reader, *, as_bytes: bool) -> Iterator[Symbols]:
    """The training text as one stream of symbols, in chunks."""
    parts: list[Symbols] = []
    size = 0
    for rows in training_rows(corpus):
        for example in reader.encode(rows):
            parts.append(np.frombuffer(reader.bytes_of(example.ids), np.uint8).astype(np.uint64) if as_bytes else example.ids.astype(np.uint64))
            size += len(parts[-1])
        if size >= CHUNK_SYMBOLS:
            yield np.concatenate(parts)
            parts, size = [], 0
    if parts:
        yield np.concatenate(parts)


def ngram_nats(model: NGramModel, held: HeldOut, reader: Reader, *, as_bytes: bool) -> float:
    """Nats of the scored tokens of a held-out text."""
    total = 0.0
    for example in held.examples:
        flags = example.mask.copy()
        flags[0] = False  # never predicted
        if as_bytes:
            symbols = np.frombuffer(reader.bytes_of(example.ids), np.uint8).astype(np.uint64)
            flags = np.repeat(flags, [len(reader.token_bytes[i]) for i in example.ids])
        else:
            symbols = example.ids.astype(np.uint64)
        total += float(model.nll(symbols, 0)[flags].sum())
    return total


def best_ngram(corpus: Path, reader: Reader, held: dict[str, HeldOut], *, as_bytes: bool, budget: int) -> tuple[str, dict[str, float]]:
    """Name and nats per byte of the order with the least held-out loss."""
    found: list[tuple[float, str, dict[str, float]]] = []
    orders, num_symbols = (BYTE_ORDERS, 256) if as_bytes else (TOKEN_ORDERS, reader.num_tokens)
    tables = count(symbol_chunks(corpus, reader, as_bytes=as_bytes), num_symbols, max(orders))
    for order in orders:
        model = NGramModel(pruned(tables[:order], budget), num_symbols)
        nats = {row: ngram_nats(model, held[row], reader, as_bytes=as_bytes) / held[row].num_bytes for row in ROWS}
        kind = "byte" if as_bytes else "token"
        print(f"{kind} {order}-gram, {model.num_ngrams:,} n-grams: {sum(nats.values()) / len(ROWS):.4f} nats per byte on average", file=sys.stderr)
        found.append((sum(nats.values()), f"{kind} {order}-gram", nats))
    _, name, nats = min(found)
    return name, nats


def neural_nats(folder: Path, held: dict[str, HeldOut]) -> dict[str, float]:
    """Nats per byte of a model folder, computed in float32."""
    model = load_model(folder, dtype=torch.float32).eval()
    nats = {}
    for row in ROWS:
        sums, _ = score_examples(model, held[row].examples, micro_batch_tokens=2048, device="cpu", path="reference")
        nats[row] = float(sums.sum()) / held[row].num_bytes
    return nats


def table(columns: dict[str, dict[str, float]], held: dict[str, HeldOut]) -> str:
    """The comparison as a markdown table."""
    lines = [f"| nats per byte, held out | bytes | {' | '.join(columns)} |", "|---|---:|" + "---:|" * len(columns)]
    lines += [f"| {row} | {held[row].num_bytes:,} | {' | '.join(f'{nats[row]:.3f}' for nats in columns.values())} |" for row in ROWS]
    return "\n".join(lines)


def with_table(card: str, shown: str) -> str:
    """The model card with what stands between its two marks replaced by the table."""
    before, mark, rest = card.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not mark or not end:
        raise ValueError(f"the card lacks {' or '.join(MARKS)}")
    return f"{before}{mark}\n{shown}\n{end}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", type=Path, nargs="*", default=[FOLDER / "tiny"], help="model folders; each becomes a column")
    parser.add_argument("--corpus", type=Path, default=Path("build/tiny"), help="folder written by build_corpus.py")
    parser.add_argument("--card", type=Path, help="model card to write the table into, between its marks")
    arguments = parser.parse_args()
    reader = Reader(arguments.models[0])
    held = held_out(arguments.corpus, reader)
    num_bytes = sum(file.stat().st_size for file in arguments.models[0].glob("*.safetensors"))
    columns = {"uniform": dict.fromkeys(ROWS, math.log(256))}
    for as_bytes in (True, False):
        name, nats = best_ngram(arguments.corpus, reader, held, as_bytes=as_bytes, budget=num_bytes // BYTES_PER_NGRAM)
        columns[name] = nats
    for folder in arguments.models:
        columns["danlu/tiny" if folder == FOLDER / "tiny" else str(folder)] = neural_nats(folder, held)
    shown = table(columns, held)
    print(shown)
    if arguments.card:
        arguments.card.write_text(with_table(arguments.card.read_text("utf-8"), shown), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
