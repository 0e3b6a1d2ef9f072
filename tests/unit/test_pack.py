from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from danlu.data.pack import EncodedExample, TokenFile, epoch_order, pack, step_batches


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 256))
def test_packing_keeps_every_example_once_and_respects_the_capacity(lengths: list[int], capacity: int) -> None:
    groups = pack(lengths, capacity)

    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in group) <= capacity or len(group) == 1 for group in groups)


@given(st.integers(1, 50), st.integers(1, 9), st.integers(1, 40))
def test_each_epoch_visits_every_example_once_wherever_it_is_resumed(num_examples: int, batch: int, start: int) -> None:
    steps_per_epoch = -(-num_examples // batch)
    num_steps = 2 * steps_per_epoch
    whole = list(step_batches(num_examples, global_batch_size=batch, seed=3, start_step=0, num_steps=num_steps))
    resumed = list(step_batches(num_examples, global_batch_size=batch, seed=3, start_step=min(start, num_steps), num_steps=num_steps))

    assert sorted(np.concatenate(whole[:steps_per_epoch])) == list(range(num_examples))
    assert sorted(np.concatenate(whole[steps_per_epoch:])) == list(range(num_examples))
    assert [list(b) for b in whole[min(start, num_steps) :]] == [list(b) for b in resumed]


def test_epochs_differ_and_seeds_differ() -> None:
    orders = {tuple(epoch_order(20, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_a_token_file_returns_what_was_written(tmp_path: Path) -> None:
    examples = [EncodedExample(np.arange(n, dtype=np.uint32), np.arange(n) % 2 == 1) for n in (3, 1, 5)]

    TokenFile.write(tmp_path / "train.tokens", iter(examples))
    stored = TokenFile(tmp_path / "train.tokens")

    assert [list(stored[i].ids) for i in range(3)] == [list(e.ids) for e in examples]
    assert [list(stored[i].mask) for i in range(3)] == [list(e.mask) for e in examples]
    assert stored.num_label_tokens() == 1 + 0 + 2


def test_a_token_file_without_examples_is_readable(tmp_path: Path) -> None:
    TokenFile.write(tmp_path / "empty.tokens", iter(()))
    assert len(TokenFile(tmp_path / "empty.tokens")) == 0
