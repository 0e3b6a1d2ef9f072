"""Groups: the sequences of one example (two for a pair), which stay together in a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from danlu.data.pack import EncodedExample, TokenFile
from danlu.training.batch import PackedBatch

Group = list[EncodedExample]


def first_groups(tokens: TokenFile, group_size: int, *, max_tokens: int) -> list[Group]:
    """The first examples of a token file that are not empty, up to `max_tokens` tokens (at least one example)."""
    groups: list[Group] = []
    seen = 0
    for index in range(len(tokens) // group_size):
        group = tokens.group(index, group_size)
        if not num_tokens_of(group):
            continue
        if groups and seen + num_tokens_of(group) > max_tokens:
            break
        groups.append(group)
        seen += num_tokens_of(group)
    return groups


def batches_of(groups: Sequence[Group], micro_batch_tokens: int, device: torch.device) -> Iterator[PackedBatch]:
    """Packed batches of at most `micro_batch_tokens` tokens; examples keep their order and are never split."""
    members: Group = []
    for group in groups:
        if members and num_tokens_of(members) + num_tokens_of(group) > micro_batch_tokens:
            yield PackedBatch.from_examples(members, device)
            members = []
        members = members + group
    if members:
        yield PackedBatch.from_examples(members, device)


def num_tokens_of(sequences: Sequence[EncodedExample]) -> int:
    """Tokens of all sequences."""
    return sum(len(sequence.ids) for sequence in sequences)


def add_numbers(numbers: dict[str, float], parts: Mapping[str, Tensor]) -> None:
    """Add the parts of one batch to the numbers of the step."""
    for name, part in parts.items():
        numbers[name] = numbers.get(name, 0.0) + float(part)
