"""Token files on disk, the order examples are visited in, and packing them into micro batches.

A token file is three flat arrays (ids, loss mask, offsets) that are memory-mapped, so a run holds only the
examples it is looking at. Knows nothing of models or templates.

Everything random here is a function of (seed, epoch), never of a global generator: a resumed run sees the
same batches as one that was never stopped.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from danlu.errors import StorageError
from danlu.files import storage_errors, write_json

TokenArray = np.ndarray[tuple[int], np.dtype[np.uint32]]
MaskArray = np.ndarray[tuple[int], np.dtype[np.bool_]]
REFERENCE = "reference.npy"


@dataclass(frozen=True)
class EncodedExample:
    """Token ids of one sequence and which of them are trained on (same length)."""

    ids: TokenArray
    mask: MaskArray
    tag: float = 0.0
    """What the objective has to know of the sequence besides its tokens (kto: +1 wanted, -1 unwanted)."""
    reference: float = 0.0
    """Nats of its label tokens under the reference model, for objectives that compare with one."""
    weights: np.ndarray | None = None
    """How much each token counts (float32, as long as `ids`); None when all count the same."""
    old_nats: np.ndarray | None = None
    """Nats of each label token when the sequence was written by the model (float32), for several steps on one rollout."""
    reference_nats: np.ndarray | None = None
    """Nats of each label token under the reference model (float32), for penalties by token."""


class TokenFile(Sequence[EncodedExample]):
    """A folder with `ids.bin` (uint32), `mask.bin` (uint8) and `offsets.npy` (int64, one more than sequences).

    `tags.npy` (float32) and `weights.bin` (float32) are there when any sequence has a tag or weighs its tokens. Training adds
    `reference.npy` (float64) when the objective compares with a reference model.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.offsets = np.load(path / "offsets.npy", allow_pickle=False)
        except OSError as error:
            raise StorageError(f"token cache {path} cannot be read", why=str(error), fix="delete it; it is made again") from error
        total = int(self.offsets[-1])
        self._ids = np.memmap(path / "ids.bin", np.uint32, "r", shape=(total,)) if total else np.zeros(0, np.uint32)
        self._mask = np.memmap(path / "mask.bin", np.bool_, "r", shape=(total,)) if total else np.zeros(0, np.bool_)
        self._weights = np.memmap(path / "weights.bin", np.float32, "r", shape=(total,)) if total and (path / "weights.bin").exists() else None
        self._tags = _numbers(path / "tags.npy", len(self))
        self._reference = _numbers(path / REFERENCE, len(self))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # int only; slices are not needed
        start, end = self.offsets[index], self.offsets[index + 1]
        weights = None if self._weights is None else np.asarray(self._weights[start:end])
        ids, mask = np.asarray(self._ids[start:end]), np.asarray(self._mask[start:end])
        return EncodedExample(ids, mask, float(self._tags[index]), float(self._reference[index]), weights)

    def group(self, index: int, size: int) -> list[EncodedExample]:
        """The `size` sequences of example `index`, of an objective that makes so many of each."""
        return [self[position] for position in range(index * size, (index + 1) * size)]

    def groups(self, indices: Sequence[int], size: int) -> list[list[EncodedExample]]:
        """The sequences of several examples."""
        return [self.group(index, size) for index in indices]

    @property
    def sample(self) -> "TokenFile":
        """What lengths are read from: all of it."""
        return self

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example."""
        return np.diff(self.offsets)

    def label_counts(self) -> np.ndarray:
        """Trained tokens of each example; its first token is predicted from nothing."""
        sums = np.concatenate([[0], np.cumsum(self._mask, dtype=np.int64)])
        starts = self.offsets[:-1]
        has_first = np.zeros(len(self), np.int64)
        filled = self.lengths > 0
        has_first[filled] = self._mask[starts[filled]]
        return np.asarray(sums[self.offsets[1:]] - sums[starts] - has_first)

    def num_label_tokens(self) -> int:
        """Trained tokens in all. A document's first token is predicted from nothing, so it never counts."""
        total = int(np.count_nonzero(self._mask))
        starts = self.offsets[:-1][self.lengths > 0]
        return total - int(np.count_nonzero(self._mask[starts])) if total else 0

    @staticmethod
    def write(path: Path, examples: Iterable[EncodedExample]) -> int:
        """Stream `examples` into folder `path`; the folder appears complete or not at all. Returns their number."""
        import os
        import shutil

        staging = path.with_name(f".{path.name}.tmp")
        with storage_errors(path):
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            offsets, tags, is_weighed = [0], [], False
            with ExitStack() as stack:
                ids, mask, weights = (stack.enter_context((staging / f"{name}.bin").open("wb")) for name in ("ids", "mask", "weights"))
                for example in examples:
                    ids.write(example.ids.astype(np.uint32).tobytes())
                    mask.write(example.mask.astype(np.bool_).tobytes())
                    is_weighed = is_weighed or example.weights is not None
                    weights.write((np.ones(len(example.ids)) if example.weights is None else example.weights).astype(np.float32).tobytes())
                    offsets.append(offsets[-1] + len(example.ids))
                    tags.append(example.tag)
            if not is_weighed:
                (staging / "weights.bin").unlink()
            np.save(staging / "offsets.npy", np.asarray(offsets, np.int64))
            if any(tags):
                np.save(staging / "tags.npy", np.asarray(tags, np.float32))
            write_json(staging / "summary.json", {"num_examples": len(offsets) - 1, "num_tokens": offsets[-1]})
            shutil.rmtree(path, ignore_errors=True)
            os.replace(staging, path)
        return len(offsets) - 1


def _numbers(path: Path, count: int) -> np.ndarray:
    """One number per sequence; zeros without the file."""
    return np.load(path, allow_pickle=False) if path.exists() else np.zeros(count)


def epoch_order(num_examples: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order in which epoch `epoch` visits the examples."""
    return np.random.default_rng((seed, epoch)).permutation(num_examples)


def step_batches(num_examples: int, *, global_batch_size: int, seed: int, start_step: int, num_steps: int) -> Iterator[np.ndarray]:
    """Yield the example indices of steps `start_step` .. `num_steps - 1`; the last batch of an epoch may be smaller."""
    steps_per_epoch = -(-num_examples // global_batch_size)
    for step in range(start_step, num_steps):
        epoch, position = divmod(step, steps_per_epoch)
        if step == start_step or position == 0:
            order = epoch_order(num_examples, seed=seed, epoch=epoch)
        yield order[position * global_batch_size : (position + 1) * global_batch_size]


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Group positions 0..n-1 so that each group's lengths sum to at most `capacity` (first-fit decreasing).

    An example longer than `capacity` gets a group of its own. Ties keep their order, so the result is deterministic.
    """
    groups: list[list[int]] = []
    room: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        for group, free in enumerate(room):
            if lengths[position] <= free:
                groups[group].append(position)
                room[group] -= lengths[position]
                break
        else:
            groups.append([position])
            room.append(capacity - lengths[position])
    return groups


def divide(sizes: Sequence[int], num_parts: int) -> list[list[int]]:
    """Positions 0..n-1 divided into parts of nearly the same size each; every part keeps their order.

    Largest first, each to the part that has least so far (Graham 1969, LPT): within 4/3 of the best division.
    """
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    loads = [0] * num_parts
    for position in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        part = loads.index(min(loads))
        parts[part].append(position)
        loads[part] += sizes[position]
    return [sorted(part) for part in parts]
