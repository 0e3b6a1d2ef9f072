"""The data stage from file to splits: every row accounted for, nothing leaked, nothing done twice."""

import random
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from danlu.data.staging import exact_text
from danlu.errors import DataError, FormatError, TooFewExamplesError

Prepare = Any
"""The fixture `prepared` of conftest.py."""


WORDS = [
    "张家界",
    "国家",
    "森林",
    "公园",
    "位于",
    "湖南",
    "省",
    "西北",
    "部",
    "有",
    "三千",
    "奇峰",
    "八百",
    "秀水",
    "天门",
    "山",
    "玻璃",
    "栈道",
    "索道",
    "门票",
    "游客",
    "导游",
    "酒店",
    "特产",
]


def jsonl(*rows: Any) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def varied(count: int, seed: int = 0) -> list[dict[str, str]]:
    rng = random.Random(seed)
    return [{"prompt": f"{seed}-{place}: " + " ".join(rng.choices(WORDS, k=6)), "completion": " ".join(rng.choices(WORDS, k=30))} for place in range(count)]


def check(prepared: Any) -> None:
    """What must hold for every file: the identity, one entry per row that went elsewhere, nothing in two places."""
    account, dropped = prepared.accounting, prepared.dropped
    splits = {name: prepared.split(name) for name in ("train", "validation", "test")}
    own = {name: [e for e in examples if "source" not in e] for name, examples in splits.items()}
    assert account.rows_in == account.used + account.dropped + account.duplicate + account.near_duplicate
    assert {name: len(examples) for name, examples in own.items()} == account.splits
    actions = [entry["action"] for entry in dropped]
    counts = {action: actions.count(action) for action in ("dropped", "duplicate", "near_duplicate", "fixed")}
    assert counts == {"dropped": account.dropped, "duplicate": account.duplicate, "near_duplicate": account.near_duplicate, "fixed": account.fixed}
    used = {e["line"] for examples in own.values() for e in examples}
    gone = {entry["line"] for entry in dropped if entry["action"] != "fixed"}
    assert len(used) == account.used and not used & gone
    assert {entry["line"] for entry in dropped if entry["action"] == "fixed"} <= used
    assert all(entry["reason"] for entry in dropped)
    texts = [" ".join(exact_text(e).split()) for examples in own.values() for e in examples]
    assert len(set(texts)) == len(texts)


def test_rows_go_where_the_account_says(prepared: Prepare) -> None:
    rows = varied(40)
    content = jsonl(*rows, rows[3], {"prompt": "empty", "completion": " "}, {"prompt": "fixed\x00", "completion": "yes"}) + b"{broken\n"

    done = prepared(content)

    check(done)
    assert done.dropped == [
        {"line": 41, "action": "duplicate", "reason": "same content", "duplicate_of": 4},
        {"line": 42, "action": "dropped", "reason": "empty answer"},
        {"line": 43, "action": "fixed", "reason": "NUL characters removed"},
        {"line": 44, "action": "dropped", "reason": "not JSON: " + done.dropped[3]["reason"].removeprefix("not JSON: ")},
    ]
    account = done.accounting
    assert (account.rows_in, account.used, account.dropped, account.duplicate, account.fixed) == (44, 41, 2, 1, 1)
    assert (account.format, account.container, account.encoding, account.unit) == ("prompt_completion", "jsonl", "utf-8", "line")
    assert account.splits == {"train": 33, "validation": 4, "test": 4}
    assert done.examples[0] == {
        "line": 1,
        "messages": [{"role": "user", "content": rows[0]["prompt"]}, {"role": "assistant", "content": rows[0]["completion"]}],
    }


CELL = st.sampled_from(["", " ", "a", "b", "a\x00", "答案", "</s>", "### Response:\n"]) | st.text(max_size=8) | st.integers(-5, 5) | st.none()
TURN = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool", "Human", "x"]), "content": CELL})
ROW = (
    st.fixed_dictionaries({"prompt": CELL, "completion": CELL})
    | st.fixed_dictionaries({"messages": st.lists(TURN, max_size=5)})
    | st.dictionaries(st.sampled_from(["prompt", "completion", "messages", "text"]), CELL, max_size=3)
)


def fits(row: Any) -> bool:
    try:
        orjson.dumps(row)
    except TypeError:
        return False
    return True


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    lines=st.lists(ROW.filter(fits).map(orjson.dumps) | st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b" ")), max_size=30),
    near=st.sampled_from(["drop", "keep_together"]),
    share=st.floats(0, 0.4),
)
def test_every_row_of_any_file_is_accounted_for(prepared: Prepare, lines: list[bytes], near: str, share: float) -> None:
    # The first rows settle the format; what follows may be anything.
    content = jsonl(*({"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(40))) + b"\n".join(lines)

    done = prepared(content, near_duplicates=near, split={"validation": share, "test": share})

    check(done)
    assert done.accounting.rows_in == 40 + sum(1 for line in lines if line.strip())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.integers(0, 10**6), st.sampled_from(["drop", "keep_together"]))
def test_near_duplicates_never_straddle_the_splits(prepared: Prepare, seed: int, near: str) -> None:
    rng = random.Random(seed)
    rows = varied(60, seed)
    copies = []
    for row in rows[:30]:
        place = rng.randrange(len(row["completion"]) - 1)
        copies.append(row | {"completion": row["completion"][:place] + "改" + row["completion"][place + 1 :]})
    everything = [*rows, *copies, *rows[:5]]
    rng.shuffle(everything)

    done = prepared(jsonl(*everything), near_duplicates=near, split={"validation": 0.2, "test": 0.2})

    check(done)
    places = {e["messages"][0]["content"]: set() for e in done.examples}
    for name in ("train", "validation", "test"):
        for example in done.split(name):
            places[example["messages"][0]["content"]].add(name)
    assert all(len(names) == 1 for names in places.values())
    assert done.accounting.duplicate == 5
    assert done.accounting.near_duplicate + done.accounting.near_duplicates_kept == 30


def test_the_same_input_gives_the_same_bytes(prepared: Prepare) -> None:
    content = jsonl(*varied(200))
    one, other, reseeded = prepared(content), prepared(content), prepared(content, seed=1)
    names = ("train.jsonl", "validation.jsonl", "test.jsonl", "dropped.jsonl")

    assert [(one.folder / name).read_bytes() for name in names] == [(other.folder / name).read_bytes() for name in names]
    assert one.split("test") != reseeded.split("test")


def test_rows_keep_the_order_of_the_file(prepared: Prepare) -> None:
    done = prepared(jsonl(*varied(100)))

    for name in ("train", "validation", "test"):
        lines = [e["line"] for e in done.split(name)]
        assert lines == sorted(lines)


@pytest.mark.parametrize(("count", "splits"), [(1, (1, 0, 0)), (2, (2, 0, 0)), (5, (5, 0, 0)), (10, (8, 1, 1))])
def test_small_files_are_trained_on_and_say_what_is_missing(prepared: Prepare, count: int, splits: tuple[int, int, int]) -> None:
    done = prepared(jsonl(*varied(count)))

    assert tuple(done.accounting.splits.values()) == splits
    assert [w.kind for w in done.accounting.warnings] == ["empty_split"] * splits.count(0)


def test_nothing_left_to_train_on_is_an_error_that_names_the_reasons(prepared: Prepare) -> None:
    with pytest.raises(TooFewExamplesError, match="no example is left") as caught:
        prepared(jsonl({"prompt": "a", "completion": ""}, {"prompt": "b", "completion": " "}))

    assert "empty answer (2)" in caught.value.why


class TestAgain:
    """A second call on the same run folder."""

    @pytest.fixture
    def again(self, tmp_path: Path) -> Any:
        from danlu.data.prepare import prepare
        from danlu.recipe.recipe import Recipe
        from danlu.reporter import Reporter
        from danlu.run_dir import RunDir

        path = tmp_path / "data.jsonl"
        path.write_bytes(jsonl(*varied(20)))
        run_dir = RunDir.create(tmp_path / "run")

        def run(**changes: Any) -> tuple[Any, int]:
            recipe = Recipe(base_model="danlu/tiny", dataset=str(path), **changes)
            account = prepare(recipe, run_dir, Reporter(run_dir), dataset=path, mix={})
            return account, (run_dir.data / "train.jsonl").stat().st_mtime_ns

        return path, run_dir, run

    def test_does_nothing(self, again: Any) -> None:
        path, _, run = again
        first, written = run()
        path.touch()

        assert run() == (first, written)

    @pytest.mark.parametrize("changes", [{"seed": 1}, {"data": {"system": "s"}}, {"data": {"split": {"test": 0.2}}}])
    def test_does_all_when_the_recipe_changed(self, again: Any, changes: dict[str, Any]) -> None:
        _, _, run = again
        first, written = run()
        second, rewritten = run(**changes)

        assert second.key != first.key and rewritten != written

    def test_does_all_when_the_file_changed_or_a_result_is_gone(self, again: Any) -> None:
        path, run_dir, run = again
        first, _ = run()
        path.write_bytes(jsonl(*varied(20, seed=5)))
        second, _ = run()
        (run_dir.data / "test.jsonl").unlink()
        third, _ = run()

        assert second.source["sha256"] != first.source["sha256"]
        assert third == second
        assert (run_dir.data / "test.jsonl").exists()

    def test_starts_over_what_was_cut_off(self, again: Any) -> None:
        _, run_dir, run = again
        (run_dir.data / ".staging" / "main").mkdir(parents=True)
        (run_dir.data / ".staging" / "main" / "examples.jsonl").write_bytes(b"half")

        account, _ = run()

        assert account.used == 20
        assert sorted(p.name for p in run_dir.data.iterdir()) == ["accounting.json", "dropped.jsonl", "test.jsonl", "train.jsonl", "validation.jsonl"]


def test_progress_is_told(tmp_path: Path) -> None:
    from danlu.data.prepare import prepare
    from danlu.recipe.recipe import Recipe
    from danlu.reporter import Reporter
    from danlu.run_dir import RunDir

    path, told = tmp_path / "data.jsonl", []
    path.write_bytes(jsonl(*varied(20)))
    run_dir = RunDir.create(tmp_path / "run")

    prepare(Recipe(base_model="danlu/tiny", dataset="d"), run_dir, Reporter(run_dir, lambda kind, fields: told.append((kind, fields))), dataset=path, mix={})

    assert ("progress", {"what": "reading rows", "done": 20, "total": 20}) in told
    assert told[-1] == ("progress", {"what": "comparing examples", "done": 21, "total": 21})


class TestMix:
    """Other datasets in training."""

    @pytest.fixture
    def general(self, tmp_path: Path) -> Path:
        path = tmp_path / "general.jsonl"
        path.write_bytes(jsonl(*varied(50, seed=9)))
        return path

    def test_its_share_is_added_to_training_only(self, prepared: Prepare, general: Path) -> None:
        done = prepared(jsonl(*varied(100)), mix={"general": (0.25, general)})

        added = [e for e in done.split("train") if e.get("source") == "general"]
        check(done)
        assert len(added) == 20 == len({e["line"] for e in added})
        assert not any("source" in e for name in ("validation", "test") for e in done.split(name))
        account = done.accounting.mix["general"]
        assert done.accounting.num_train == 100
        assert {key: account[key] for key in ("share", "rows_in", "available", "added", "repeated")} == {
            "share": 0.25, "rows_in": 50, "available": 50, "added": 20, "repeated": 0,
        }  # fmt: skip

    def test_rows_repeat_only_when_all_were_taken_and_it_is_said(self, prepared: Prepare, general: Path) -> None:
        done = prepared(jsonl(*varied(100)), mix={"general": (1.5, general)})

        lines = [e["line"] for e in done.split("train") if "source" in e]
        assert sorted({lines.count(line) for line in lines}) == [2, 3] and len(lines) == 120
        assert done.accounting.mix["general"]["repeated"] == 70
        assert [w.kind for w in done.accounting.warnings] == ["mix_repeated"]

    def test_rows_that_nearly_equal_held_out_ones_are_never_mixed_in(self, prepared: Prepare, tmp_path: Path) -> None:
        rows = varied(100)
        copies = [row | {"completion": row["completion"][:-1] + "改"} for row in rows]
        (tmp_path / "leak.jsonl").write_bytes(jsonl(*copies, *rows))

        done = prepared(jsonl(*rows), mix={"leak": (2.0, tmp_path / "leak.jsonl")})

        held_out = {e["messages"][0]["content"] for name in ("validation", "test") for e in done.split(name)}
        mixed_in = {e["messages"][0]["content"] for e in done.split("train") if "source" in e}
        assert len(held_out) == 20 and len(mixed_in) == 80
        assert not held_out & mixed_in
        assert done.accounting.mix["leak"]["held_out_duplicates"] == 40

    def test_a_dataset_with_nothing_to_add_is_an_error(self, prepared: Prepare, tmp_path: Path) -> None:
        (tmp_path / "empty.jsonl").write_bytes(jsonl({"prompt": "a", "completion": ""}))

        with pytest.raises(TooFewExamplesError, match="no row is left to mix in as 'empty'"):
            prepared(jsonl(*varied(10)), mix={"empty": (0.1, tmp_path / "empty.jsonl")})

    def test_a_share_of_less_than_one_example_is_said(self, prepared: Prepare, general: Path) -> None:
        done = prepared(jsonl(*varied(10)), mix={"general": (0.01, general)})

        assert [w.kind for w in done.accounting.warnings] == ["mix_empty"]


PAIR = {"prompt": "q", "chosen": "good", "rejected": "bad"}


def test_preference_pairs_are_trained_on_by_their_chosen_answers_in_sft(prepared: Prepare) -> None:
    done = prepared(jsonl(PAIR))

    assert done.examples == [{"line": 1, "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}]}]
    assert done.accounting.warnings[0].kind == "chosen_only"


@pytest.mark.parametrize(
    ("content", "name", "objective", "fix"),
    [
        (jsonl({"prompt": "q", "completion": "a"}), "a.jsonl", "pretrain", "objective: {type: sft}"),
        (jsonl(PAIR), "a.jsonl", "pretrain", "objective: {type: dpo} (or orpo"),
        (jsonl({"prompt": "q", "completion": "a"}), "a.jsonl", "dpo", "rows with `prompt`, `chosen` and `rejected`"),
        (jsonl({"prompt": "q", "completion": "a", "label": True}), "a.jsonl", "dpo", "objective: {type: kto}"),
        (jsonl({"text": "words"}), "a.jsonl", "sft", "objective: {type: pretrain}"),
        (b"only some lines\nof text\n", "a.txt", "sft", "objective: {type: pretrain}"),
    ],
)
def test_a_file_that_the_objective_cannot_use_is_refused_with_the_one_that_can(prepared: Prepare, content: bytes, name: str, objective: str, fix: str) -> None:
    with pytest.raises(FormatError, match="but the objective needs") as caught:
        prepared(content, name=name, objective=objective)

    assert fix in caught.value.fix


def test_a_column_of_text_is_read_as_the_objective_needs(prepared: Prepare) -> None:
    content = "text,label\n今天天气很好,天气\n我要退货,售后\n".encode()

    assert prepared(content, name="a.csv").examples[0]["messages"][1]["content"] == "天气"
    assert prepared(content, name="a.csv", objective="pretrain").examples[0] == {"line": 2, "text": "今天天气很好"}


def test_columns_can_be_named(prepared: Prepare) -> None:
    content = b"Type,Question,Best Answer\nx,why?,because\n"
    done = prepared(content, name="a.csv", format={"type": "prompt_completion", "prompt": "Question", "completion": "Best Answer"})

    assert done.examples[0]["messages"] == [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "because"}]
    assert done.accounting.columns == {"prompt": "Question", "completion": "Best Answer"}


def test_a_column_that_is_not_there_names_the_nearest(prepared: Prepare) -> None:
    with pytest.raises(FormatError, match="has no column 'Qestion'") as caught:
        prepared(b"Question,Answer\nwhy?,because\n", name="a.csv", format={"type": "prompt_completion", "prompt": "Qestion", "completion": "Answer"})

    assert caught.value.why == "columns found: Question, Answer"
    assert caught.value.fix == "set data.format.prompt to 'Question'"


def test_unknown_columns_are_listed_with_the_nearest(prepared: Prepare) -> None:
    with pytest.raises(FormatError, match="cannot tell the dataset format") as caught:
        prepared(b"Category,Question,Best Answer\nx,why?,because\n", name="a.csv")

    assert "prompt: Question, completion: Best Answer" in caught.value.fix


@pytest.mark.parametrize("format", ["alpaca", "messages", "sharegpt", "preference", "text"])
def test_the_wrong_format_is_refused_before_rows_are_dropped(prepared: Prepare, format: str) -> None:
    with pytest.raises(FormatError, match="no row at the start"):
        prepared(jsonl({"question": "q", "answer": "a"}), format=format)


def test_a_format_of_columns_cannot_read_plain_text(prepared: Prepare) -> None:
    with pytest.raises(FormatError):
        prepared(b"some text\n", name="a.txt", format="alpaca")


def test_a_system_message_is_put_before_examples_that_have_none(prepared: Prepare) -> None:
    done = prepared(jsonl({"prompt": "q", "completion": "a"}, {"prompt": "q2", "completion": "a2", "system": "own"}), system="be kind")

    assert [e["messages"][0]["content"] for e in done.examples] == ["be kind", "own"]


def test_questions_and_answers_in_a_text_file(prepared: Prepare) -> None:
    done = prepared("前言\n问：门票多少钱？\n答：225 元。\n四天有效。\n\n问：几点开门？\n答：\n问：在哪里？ 答：湖南。\n".encode("gb18030"), name="a.txt")

    assert [(e["line"], [m["content"] for m in e["messages"]]) for e in done.examples] == [
        (2, ["门票多少钱？", "225 元。\n四天有效。"]),
        (8, ["在哪里？", "湖南。"]),
    ]
    assert [(d["line"], d["reason"]) for d in done.dropped] == [(1, "no question or answer marker"), (6, "empty answer")]
    assert done.accounting.encoding == "gb18030"


def test_marked_text_is_read_as_asked_even_where_it_would_not_be_told(prepared: Prepare) -> None:
    done = prepared("问：甲\n答：乙\n答：丙\n答：丁\n".encode(), name="a.txt", format="qa_text")

    assert [m["content"] for m in done.examples[0]["messages"]] == ["甲", "乙\n\n丙\n\n丁"]


def test_an_answer_of_a_megabyte_passes(prepared: Prepare) -> None:
    rng = random.Random(0)
    long = "".join(rng.choices(WORDS, k=400_000))
    done = prepared(jsonl({"prompt": "q", "completion": long}, {"prompt": "q", "completion": long[:-1] + "改"}))

    assert len(long.encode()) > 1_000_000
    assert done.accounting.used == 2 and done.accounting.near_duplicates_kept == 1


def test_reasons_of_many_dropped_rows_are_warned_of(prepared: Prepare) -> None:
    done = prepared(jsonl(*varied(10), *({"prompt": f"{n}", "completion": ""} for n in range(5))))

    assert [w.en for w in done.accounting.warnings] == ["5 of 15 rows were dropped, most often because: empty answer (5)"]


def test_unfilled_places_are_warned_of(prepared: Prepare) -> None:
    done = prepared(jsonl(*varied(10), {"prompt": "who are you?", "completion": "I am {{name}}"}))

    assert [(w.kind, "{{name}}" in w.en, "{{name}}" in w.zh) for w in done.accounting.warnings] == [("placeholders", True, True)]


def test_a_file_without_a_readable_row_names_the_first(prepared: Prepare) -> None:
    with pytest.raises(DataError, match=r"data.jsonl:1: no row of the file can be read") as caught:
        prepared(b"hello\nworld\n")

    assert "line 1: not JSON" in caught.value.why


def test_a_full_disk_is_a_storage_error(prepared: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from danlu.data.duplicates import NearDuplicates
    from danlu.errors import StorageError

    def full(self: NearDuplicates, texts: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(NearDuplicates, "add", full)

    with pytest.raises(StorageError, match="free some disk space"):
        prepared(jsonl(*varied(5)))
