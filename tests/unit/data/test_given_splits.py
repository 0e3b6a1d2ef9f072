"""Splits that the data brings along: taken as they are, and no row of one is in another unsaid."""

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from danlu.data.mix import LEAKED
from danlu.errors import DataError, RecipeError, TooFewExamplesError
from danlu.evaluation.report.words import accounting as lines_of
from danlu.files import write_json
from danlu.recipe.load import load_recipe

Prepare = Any
"""The fixture `prepared` of conftest.py."""
NEEDED = {"base_model": "danlu/tiny", "dataset": "rows.jsonl"}


def row(number: int, **more: str) -> dict[str, str]:
    draw = Random(number)
    return {
        "prompt": f"{number}: " + "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=40)),
        "completion": "".join(draw.choices("qrstuvwxyz", k=60)),
        **more,
    }


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in rows))
    return path


def lines(done: Any) -> dict[str, list[int]]:
    return {name: [example["line"] for example in done.split(name)] for name in ("train", "validation", "test")}


def test_a_column_says_where_each_row_goes(prepared: Prepare, tmp_path: Path) -> None:
    words = ["train", " Test ", "valid", "dev", "val", "TRAIN", "eval", "training", "test", "train"]
    path = written(tmp_path / "rows.jsonl", *(row(n, fold=word) for n, word in enumerate(words)))

    done = prepared(path, split={"column": "fold"})

    assert lines(done) == {"train": [1, 6, 8, 10], "validation": [3, 4, 5, 7], "test": [2, 9]}
    assert done.accounting.splits == {"train": 4, "validation": 4, "test": 2} and not done.accounting.warnings


def test_a_split_that_no_row_names_is_drawn_from_training_by_its_share(prepared: Prepare, tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", *(row(n, split="test" if n >= 20 else "train") for n in range(25)))

    done = prepared(path, split={"column": "split", "validation": 0.2, "test": 0.5})

    assert lines(done)["test"] == [21, 22, 23, 24, 25]
    assert len(lines(done)["validation"]) == 4 and max(lines(done)["validation"]) <= 20
    assert prepared(path, split={"column": "split", "validation": 0.0}).accounting.splits == {"train": 20, "validation": 0, "test": 5}


@pytest.mark.parametrize("near", ["keep_together", "drop"])
def test_rows_that_stand_in_two_splits_are_held_out_and_told(prepared: Prepare, tmp_path: Path, near: str) -> None:
    almost = row(3) | {"completion": row(3)["completion"] + " z", "split": "train"}
    rows = [row(0, split="train"), row(1, split="train"), row(2, split="validation"), row(3, split="test"), row(1, split="test"), almost]
    again = [row(3, split="validation"), row(2, split="train"), row(2, split="validation"), row(4, split="train")]
    path = written(tmp_path / "rows.jsonl", *rows, *again)

    done = prepared(path, split={"column": "split"}, near_duplicates=near)

    assert lines(done) == {"train": [1, 10], "validation": [3], "test": [4, 5]}
    assert [entry["line"] for entry in done.dropped if entry["reason"] == LEAKED] == [2, 6, 7, 8]
    assert done.accounting.reasons["dropped"] == {LEAKED: 4} and done.accounting.duplicate == 1
    [warning] = [warning for warning in done.accounting.warnings if warning.kind == "split_leak"]
    assert warning.en.startswith("4 rows of ") and "first: line 2" in warning.en and "4 行" in warning.zh


@pytest.mark.parametrize(
    ("bad", "says"), [({"split": "later"}, "column 'split' says 'later'"), ({}, "the row has no column 'split'"), ({"split": None}, "no column")]
)
def test_a_row_that_names_no_split_is_an_error_with_its_line(prepared: Prepare, tmp_path: Path, bad: dict[str, Any], says: str) -> None:
    path = written(tmp_path / "rows.jsonl", row(0, split="train"), row(1, split="test"), row(2) | bad)

    with pytest.raises(DataError) as caught:
        prepared(path, split={"column": "split"})

    assert caught.value.what.startswith(f"{path}:3: ") and says in caught.value.what
    assert "write train, validation or test there" in caught.value.fix


def test_plain_text_has_no_column(prepared: Prepare) -> None:
    with pytest.raises(DataError, match="is plain text"):
        prepared("Question: a\nAnswer: b\n" * 4, name="rows.txt", split={"column": "split"}, format="qa_text")


def test_files_of_their_own_are_the_held_out_splits(prepared: Prepare, tmp_path: Path) -> None:
    test = written(tmp_path / "test.jsonl", row(100), row(101), row(100), {"prompt": "x", "completion": " "})
    validation = written(tmp_path / "validation.jsonl", row(200), row(101), row(201))
    path = written(tmp_path / "rows.jsonl", *(row(n) for n in range(12)), row(200), row(100) | {"completion": row(100)["completion"] + " y"})

    done = prepared(path, split={"validation_dataset": str(validation), "test_dataset": str(test)})

    assert lines(done) == {"train": list(range(1, 13)), "validation": [1, 3], "test": [1, 2]}
    assert {example["source"] for example in done.split("test")} == {str(test)}
    assert done.accounting.splits == {"train": 12, "validation": 0, "test": 0} and done.accounting.reasons["dropped"] == {LEAKED: 2}
    counts = {split: {key: one[key] for key in ("rows_in", "dropped", "duplicate", "leaked", "used")} for split, one in done.accounting.given.items()}
    assert counts == {
        "test": {"rows_in": 4, "dropped": 1, "duplicate": 1, "leaked": 0, "used": 2},
        "validation": {"rows_in": 3, "dropped": 0, "duplicate": 0, "leaked": 1, "used": 2},
    }
    assert Counter(warning.kind for warning in done.accounting.warnings) == {"split_leak": 2, "many_dropped": 1}
    told = [(entry.get("dataset"), entry["line"], entry["action"]) for entry in done.dropped]
    assert told == [(None, 13, "dropped"), (None, 14, "dropped"), (str(test), 4, "dropped"), (str(test), 3, "duplicate"), (str(validation), 2, "dropped")]
    shown = {line["name"][0]: line["value"][0] for line in lines_of(done.accounting.to_dict(), None)}
    assert (shown["Validation split"], shown["Held-out test split"], shown["Also among the test rows, left out"]) == ("2", "2", "1")


def test_a_test_file_alone_leaves_validation_to_its_share_and_bars_what_is_mixed_in(prepared: Prepare, tmp_path: Path) -> None:
    test = written(tmp_path / "test.jsonl", *(row(n) for n in range(100, 104)))
    other = written(tmp_path / "other.jsonl", *(row(n) for n in range(102, 112)))
    path = written(tmp_path / "rows.jsonl", *(row(n) for n in range(20)))

    done = prepared(path, mix={"other": (1.0, other)}, split={"test_dataset": str(test)})

    assert done.accounting.splits == {"train": 18, "validation": 2, "test": 0}
    assert done.accounting.mix["other"]["available"] == 8 and done.accounting.mix["other"]["held_out_duplicates"] == 2
    assert not {example["line"] for example in done.split("train") if example.get("source") == "other"} & {1, 2}


def test_a_held_out_file_is_hashed_and_a_changed_one_done_anew(prepared: Prepare, tmp_path: Path) -> None:
    test, path = written(tmp_path / "test.jsonl", row(100)), written(tmp_path / "rows.jsonl", *(row(n) for n in range(10)))
    first = prepared(path, split={"test_dataset": str(test)}).accounting
    written(test, row(101))

    assert prepared(path, split={"test_dataset": str(test)}).accounting.key != first.key
    assert first == type(first).from_dict(first.to_dict()) and len(first.given["test"]["source"]["sha256"]) == 64
    write_json(tmp_path / "account.json", {key: value for key, value in first.to_dict().items() if key != "given"})
    assert type(first).from_dict(orjson.loads((tmp_path / "account.json").read_bytes())).given == {}


def test_a_file_of_which_nothing_is_left_is_an_error(prepared: Prepare, tmp_path: Path) -> None:
    test, path = written(tmp_path / "test.jsonl", row(0)), written(tmp_path / "rows.jsonl", row(0), row(0))
    with pytest.raises(TooFewExamplesError, match="no example is left to train on") as caught:
        prepared(path, split={"test_dataset": str(test)})
    assert f"{LEAKED} (2)" in caught.value.why

    with pytest.raises(TooFewExamplesError, match="no row is left for the validation split") as caught:
        prepared(written(path, row(1), row(2)), split={"test_dataset": str(test), "validation_dataset": str(written(tmp_path / "v.jsonl", row(0)))})
    assert "remove data.split.validation_dataset" in caught.value.fix


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"column": "split", "test_dataset": "t.jsonl"}, "test_dataset and column both say what is in the test split"),
        ({"validation_dataset": "v.jsonl", "validation": 0.2}, "validation 0.2 has no effect with validation_dataset"),
        ({"validation_dataset": "v.jsonl", "test_dataset": "v.jsonl"}, "give two different ones"),
        ({"validation_dataset": "v.jsonl", "test_dataset": "t.jsonl", "max_examples": 9}, "max_examples has no effect"),
        ({"test_dataset": "rows.jsonl"}, "is trained on as well"),
        ({"colum": "split"}, "did you mean 'column'?"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(split: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(values=NEEDED | {"data": {"split": split}})

    assert words in caught.value.what


def test_early_stopping_goes_with_any_validation_split() -> None:
    patience = {"training": {"early_stopping_patience": 3}}

    for split in ({"validation": 0.0, "column": "split"}, {"validation_dataset": "v.jsonl"}):
        assert load_recipe(values=NEEDED | patience | {"data": {"split": split}}).data.split.has_validation
    with pytest.raises(RecipeError, match="has no effect without a validation split"):
        load_recipe(values=NEEDED | patience | {"data": {"split": {"validation": 0.0}}})
