"""Examples -> token files: render, tokenise in batches, shorten what is too long, account for every change.

What is too long for `max_seq_len` loses its oldest exchanges first, then the middle of the last prompt; the
assistant's turn, its header and its end token are never cut. An answer that does not fit by itself is dropped.
The sequences of a pair stay together: both get the same shortened prompt, or neither is used.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.data.chat import ChatRenderer
from danlu.data.pack import EncodedExample, TokenFile
from danlu.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from danlu.recipe.base import ObjectiveConfig

BATCH = 1000
CUT_MARK = " … "
NOTHING = EncodedExample(np.zeros(0, np.uint32), np.zeros(0, np.bool_))
"""What stands in the place of a dropped sequence."""


@dataclass
class EncodeAccount:
    """What tokenising changed: one entry per example shortened or dropped since the last `take`, and counts of all."""

    num_examples: int = 0
    num_tokens: int = 0
    num_truncated: int = 0
    num_dropped: int = 0
    truncated: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)

    def take(self) -> list[dict[str, Any]]:
        """The entries since the last call, which are forgotten here: memory stays bounded."""
        self.num_truncated += len(self.truncated)
        self.num_dropped += len(self.dropped)
        entries = [{"action": "truncated", **entry} for entry in self.truncated]
        entries += [{"action": "dropped", **entry} for entry in self.dropped]
        self.truncated, self.dropped = [], []
        return entries


def encode_to_file(
    examples: Iterable[dict[str, Any]],
    path: Path,
    *,
    objective: ObjectiveConfig,
    renderer: ChatRenderer,
    max_seq_len: int,
    truncation: str,
    note: Callable[[dict[str, Any]], None],
    progress: Callable[[int], None] = lambda done: None,
    keeps_places: bool = False,
) -> EncodeAccount:
    """Stream `examples` into the token file at `path`; `note` gets each entry of the account, which is returned.

    With `keeps_places` an example that is dropped leaves empty sequences in its place.
    """
    account = EncodeAccount()
    dropped = [NOTHING] * objective.group_size if keeps_places else []

    def encoded() -> Iterator[EncodedExample]:
        iterator = iter(examples)
        while batch := list(islice(iterator, BATCH)):
            for group in encode_each(batch, account, objective, renderer, max_seq_len, truncation):
                yield from dropped if group is None else group
            for entry in account.take():
                note(entry)
            progress(account.num_examples)

    if not hasattr(objective, "arrange"):
        TokenFile.write(path, encoded())
        return account
    plain = path.with_name(f".{path.name}.plain")
    TokenFile.write(plain, encoded())
    TokenFile.write(path, objective.arrange(TokenFile(plain), max_seq_len))
    shutil.rmtree(plain)
    return account


def encode_batch(
    batch: list[dict[str, Any]],
    account: EncodeAccount,
    objective: ObjectiveConfig,
    renderer: ChatRenderer,
    max_seq_len: int,
    truncation: str,
) -> Iterator[list[EncodedExample]]:
    """Yield the encoded blocks of each example that is kept, in order."""
    return (blocks for blocks in encode_each(batch, account, objective, renderer, max_seq_len, truncation) if blocks is not None)


def encode_each(
    batch: list[dict[str, Any]],
    account: EncodeAccount,
    objective: ObjectiveConfig,
    renderer: ChatRenderer,
    max_seq_len: int,
    truncation: str,
) -> Iterator[list[EncodedExample] | None]:
    """Yield the encoded blocks of each example, in order, or None for one that is dropped."""
    room = max_seq_len - objective.reserved_tokens
    for example, blocks in zip(batch, _encode_each(batch, account, objective, renderer, max_seq_len), strict=True):
        if blocks is None:
            yield None
            continue
        if max(len(block.ids) for block in blocks) > room:
            blocks = None if truncation == "drop" else _shortened(example, account, objective, renderer, room)
            if blocks is None:
                what = "longer" if truncation == "drop" else "the answer alone is longer"
                _note(account.dropped, example, f"{what} than {room} tokens")
                yield None
                continue
        if objective.needs != "prompt" and not (any if objective.needs == "text" else all)(block.mask[1:].any() for block in blocks):
            _note(account.dropped, example, "no token to train on")
            yield None
            continue
        account.num_examples += 1
        account.num_tokens += sum(len(block.ids) for block in blocks)
        yield blocks


def _encode_each(
    batch: list[dict[str, Any]], account: EncodeAccount, objective: ObjectiveConfig, renderer: ChatRenderer, max_seq_len: int
) -> list[list[EncodedExample] | None]:
    try:
        return list(objective.encode(batch, renderer, max_seq_len))  # type: ignore[attr-defined]
    except TemplateError:
        if len(batch) > 1:
            return [blocks for e in batch for blocks in _encode_each([e], account, objective, renderer, max_seq_len)]
        try:
            objective.encode(batch, renderer, max_seq_len)  # type: ignore[attr-defined]
        except TemplateError as error:
            _note(account.dropped, batch[0], f"the chat template refuses it: {error.why}")
        return [None]


def _shortened(
    example: dict[str, Any], account: EncodeAccount, objective: ObjectiveConfig, renderer: ChatRenderer, max_seq_len: int
) -> list[EncodedExample] | None:
    """Encode the longest shortened form of a conversation that fits, or return None when its answer alone does not."""
    messages = list(example["messages"])
    flags = list(example["train_on"]) if example.get("train_on") else None
    removed_turns = 0

    def encode() -> list[EncodedExample]:
        shorter = example | {"messages": messages} | ({"train_on": flags} if flags else {})
        return list(objective.encode([shorter], renderer, max_seq_len)[0])  # type: ignore[attr-defined]

    def fits(blocks: list[EncodedExample]) -> bool:
        return max(len(block.ids) for block in blocks) <= max_seq_len

    blocks = encode()
    while not fits(blocks):
        first = 1 if messages[0]["role"] in ("system", "developer") else 0
        end = next((i for i in range(first + 1, len(messages)) if messages[i]["role"] == "user"), None)
        if end is None:
            break
        removed_turns += end - first
        del messages[first:end]
        if flags:
            del flags[first:end]
        blocks = encode()
    cut_chars = 0
    while not fits(blocks):
        longest = max((i for i, m in enumerate(messages) if m["role"] != "assistant"), key=lambda i: len(messages[i]["content"]), default=None)
        if longest is None or len(messages[longest]["content"]) <= 2 * len(CUT_MARK):
            return None
        content = messages[longest]["content"].replace(CUT_MARK, "")
        keep = min(int(len(content) * 0.9 * max_seq_len / max(len(block.ids) for block in blocks)), len(content) - 8)
        keep = max(keep, 0)
        shorter = content[: keep // 2] + CUT_MARK + content[len(content) - keep // 2 :] if keep > 8 else ""
        cut_chars += len(messages[longest]["content"]) - len(shorter)
        messages[longest] = messages[longest] | {"content": shorter}
        blocks = encode()
    _note(account.truncated, example, f"shortened to {max_seq_len} tokens: {removed_turns} oldest messages and {cut_chars} characters of the prompt removed")
    return blocks


def _note(entries: list[dict[str, Any]], example: dict[str, Any], reason: str) -> None:
    entries.append({"line": example.get("line"), "reason": reason})
