"""The scripts that publish danlu/tiny and compare it with n-gram models."""

import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts/tiny"))
import baseline
import publish


def symbols(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8).astype(np.uint64)


def trained(text: bytes, order: int, budget: int = 10**9) -> baseline.NGramModel:
    return baseline.NGramModel(baseline.pruned(baseline.count(iter([symbols(text)]), 256, order), budget), 256)


def test_an_unpruned_ngram_model_is_witten_bell() -> None:
    model = trained(b"aabab", 2)

    found = np.exp(-model.nll(symbols(b"ab"), 0))

    # a is followed by a, b, b (3 times, 2 kinds); a occurs 3 times among 5 symbols of 2 kinds.
    p_a, p_b = (3 + 2 / 256) / (5 + 2), (2 + 2 / 256) / (5 + 2)
    assert found == pytest.approx([p_a, (2 + 2 * p_b) / (3 + 2)])


@pytest.mark.parametrize("budget", [10**9, 40, 9])
def test_probabilities_of_all_next_symbols_sum_to_one_also_after_pruning(budget: int) -> None:
    model = trained(b"the cat sat on the mat and the cat ran", 4, budget)

    total = sum(np.exp(-model.nll(symbols(b"the c" + bytes([code])), 5))[0] for code in range(256))

    assert model.num_ngrams <= budget
    assert total == pytest.approx(1)


def test_counting_in_chunks_counts_every_ngram() -> None:
    whole = baseline.count(iter([symbols(b"abcabd")]), 256, 1)
    parts = baseline.count(iter([symbols(b"abc"), symbols(b"abd")]), 256, 1)

    assert all(np.array_equal(a, b) for pair in zip(whole, parts, strict=True) for a, b in zip(*pair, strict=True))


def test_token_bytes_give_the_text_back() -> None:
    reader = baseline.Reader(publish.FOLDER / "tiny")
    text = "Hello 世界 😀\n"

    ids = reader.renderer.tokenizer(text)["input_ids"]

    assert reader.bytes_of(ids).decode() == text


def write_chats(path: Path) -> Path:
    rows = [{"messages": [{"role": "user", "content": f"question {n}?"}, {"role": "assistant", "content": f"answer {n} 是。"}]} for n in range(4)]
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return path


def test_publishing_writes_bfloat16_that_answers_like_the_source(tmp_path: Path, small_model: Path) -> None:
    import torch

    out = tmp_path / "published"

    before, after = publish.publish(small_model, small_model, out, [write_chats(tmp_path / "chat.validation.jsonl")])

    model = publish.load_model(out)
    assert model.dtype == torch.bfloat16
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (2, 0)
    assert after == pytest.approx(before, abs=publish.MAX_NLL_RISE)
    assert all((out / name).stat().st_mode & 0o777 == 0o644 for name in (*publish.WEIGHT_FILES, *publish.TOKENIZER_FILES))


def test_publishing_refuses_weights_that_are_too_large_and_leaves_the_old_ones(tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "MAX_BYTES", 1000)
    out = tmp_path / "published"

    with pytest.raises(ValueError, match="at most 1,000 may ship"):
        publish.publish(small_model, small_model, out, [write_chats(tmp_path / "chat.validation.jsonl")])

    assert not out.exists()


def test_publishing_needs_conversations_to_compare_on(tmp_path: Path, small_model: Path) -> None:
    with pytest.raises(ValueError, match="no conversation to compare on"):
        publish.publish(small_model, small_model, tmp_path / "published", [])


def test_publishing_refuses_a_tokenizer_that_the_model_was_not_trained_with(tmp_path: Path, small_model: Path) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(small_model, other)
    config = orjson.loads((other / "tokenizer_config.json").read_bytes())
    config["chat_template"] = config["chat_template"].replace("<|im_start|>", "")
    (other / "tokenizer_config.json").write_bytes(orjson.dumps(config))

    with pytest.raises(ValueError, match="not the one"):
        publish.publish(small_model, other, tmp_path / "published", [write_chats(tmp_path / "chat.validation.jsonl")])


def test_the_table_goes_between_the_marks_of_the_card_and_only_there() -> None:
    begin, end = baseline.MARKS

    once = baseline.with_table(f"a\n{begin}\nold\n{end}\nb\n", "| new |")

    assert once == f"a\n{begin}\n| new |\n{end}\nb\n"
    assert baseline.with_table(once, "| new |") == once
    with pytest.raises(ValueError, match="lacks"):
        baseline.with_table("no marks", "| new |")
