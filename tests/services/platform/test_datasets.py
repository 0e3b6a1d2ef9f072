"""Datasets: brought in, looked over by a real job, paged, corrected into new versions, never deleted under a run."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from pydantic import ValidationError
from sqlalchemy import text

from danlu.data import table_of_rows
from danlu.errors import ConflictError, DataError, FormatError, NoEffectError, NotFoundError, OutdatedError, UnknownNameError
from danlu.services.platform import datasets, projects, rows, storage
from danlu.services.platform.access import Actor
from danlu.services.platform.datasets import DatasetChange, NewDataset
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.rows import ColumnMapping, Fixes, RowEdits
from danlu.store import jobs, queue, workers
from danlu.store.datasets import DatasetVersion
from danlu.store.jobs import JOBS
from danlu.worker.kinds.base import KINDS

OWNER = Actor.local()
ROWS = [
    {"question": "One?", "answer": "1\u200b"},
    {"question": "Two?", "answer": "2"},
    {"question": "Two?", "answer": "2"},
    {"question": "Three?", "answer": ""},
    {"question": "Fünf?", "answer": "<script>alert(5)</script>"},
]
LINES = b"".join(orjson.dumps(row) + b"\n" for row in ROWS) + b"{ broken\n"


@pytest.fixture
def project_id(platform: Platform) -> str:
    return projects.create_project(platform, OWNER, NewProject(name="p")).id


def bring_in(platform: Platform, project_id: str, content: bytes = LINES, file_name: str = "rows.jsonl", name: str = "rows") -> DatasetVersion:
    stored = platform.artifacts.put_bytes(content)
    storage.cached_file(platform, stored.digest, file_name)
    with platform.database.writing() as connection:
        return datasets.add_version(connection, platform, project_id, stored, file_name=file_name, name=name)


def work(platform: Platform, kind: str) -> dict[str, Any]:
    """Do the next job of a kind as its process would, and end it as the supervisor would."""
    with platform.database.writing() as connection:
        job = next(job for job in queue.unfinished(connection) if job.kind == kind)
        while (
            claimed := jobs.claim(connection, worker_id="w", home=workers.home_id(platform.database, platform.home), total_slots=1)
        ) is not None and claimed.id != job.id:
            pass
        job = JOBS.get(connection, job.id)
    state, result = KINDS.parse(job.payload).work(platform.home)
    with platform.database.writing() as connection:
        jobs.finish(connection, job.id, job.attempt, state, result=result)
    return dict(result)


def test_a_version_gets_its_report_when_the_job_that_looks_at_it_ends(platform: Platform, project_id: str) -> None:
    version = bring_in(platform, project_id)
    with pytest.raises(ConflictError, match="has not been looked over"):
        rows.list_findings(platform, OWNER, version.id)

    work(platform, "inspect")

    report = datasets.get_dataset_version(platform, OWNER, version.id).report
    assert report is not None and (report["rows_in"], report["usable"], report["duplicate"], report["path"]) == (6, 3, 1, "rows.jsonl")
    found = rows.list_findings(platform, OWNER, version.id)
    assert [(one.number, one.action, one.same_as) for one in found.items] == [
        (1, "fixed", None),
        (4, "dropped", None),
        (6, "dropped", None),
        (3, "duplicate", 2),
    ]
    first = rows.list_findings(platform, OWNER, version.id, limit=3)
    rest = rows.list_findings(platform, OWNER, version.id, offset=first.next or 0)
    assert first.items + rest.items == found.items and rest.next is None
    assert [one.number for one in rows.list_findings(platform, OWNER, version.id, kind="dropped").items] == [4, 6]


def test_a_file_that_changed_in_the_cache_is_not_looked_at(platform: Platform, project_id: str) -> None:
    version = bring_in(platform, project_id)
    path = storage.cached(platform, version)
    path.chmod(0o644)
    path.write_bytes(LINES + b"{}")

    with pytest.raises(Exception, match="is damaged"):
        work(platform, "inspect")
    assert storage.cached(platform, version).read_bytes() == LINES, "it is fetched anew"


def test_rows_are_shown_by_page_and_found_by_what_they_hold(platform: Platform, project_id: str) -> None:
    version = bring_in(platform, project_id)

    page = rows.preview_rows(platform, OWNER, version.id, offset=1, limit=2)
    assert [(row.number, row.row) for row in page.items] == [(2, ROWS[1]), (3, ROWS[2])]
    assert (page.total, page.next) == (6, 3)
    assert [row.number for row in rows.preview_rows(platform, OWNER, version.id, contains="FÜNF").items] == [5]
    problems = rows.preview_rows(platform, OWNER, version.id, only_problems=True)
    assert [(row.number, row.row, row.problem is not None) for row in problems.items] == [(6, None, True)]
    assert rows.preview_rows(platform, OWNER, version.id, offset=10**12).items == []


@pytest.mark.parametrize("file_name", ["rows.csv", "rows.json", "rows.txt"])
def test_any_kind_of_file_is_shown_by_page(platform: Platform, project_id: str, file_name: str) -> None:
    content = {"rows.csv": b"question,answer\nOne?,1\nTwo?,2\n", "rows.json": orjson.dumps(ROWS), "rows.txt": b"line\nline two\n"}[file_name]
    version = bring_in(platform, project_id, content, file_name)

    page = rows.preview_rows(platform, OWNER, version.id)
    assert page.total == len(page.items) >= 2 and page.next is None


def test_a_page_of_a_million_rows_is_one_seek_away(tmp_path: Path) -> None:
    folder = tmp_path
    line = orjson.dumps([1, {"question": "q" * 100, "answer": "a" * 100}, None]) + b"\n"
    (folder / table_of_rows.LINES).write_bytes(line * 200_000)
    (np.arange(200_000, dtype=np.uint64) * len(line)).tofile(folder / table_of_rows.INDEX)
    (folder / table_of_rows.COLUMNS).write_bytes(b'{"counts": {"question": 200000, "answer": 200000}, "has_more": false}')

    start = time.process_time()
    for offset in (0, 100_000, 199_950):
        assert len(table_of_rows.read_page(folder, offset=offset, limit=50).items) == 50
    assert time.process_time() - start < 0.4, "the goal for one page of a million; an idle machine needs about a millisecond"


def test_a_row_is_found_by_the_number_that_findings_name(platform: Platform, project_id: str) -> None:
    content = b'question,answer\nOne?,"1\n1\n1"\nTwo?,2\n\n\nThree?,"3\n3"\nFour?,4\n'
    version = bring_in(platform, project_id, content, "rows.csv")
    numbers = [row.number for row in rows.preview_rows(platform, OWNER, version.id).items]
    assert numbers == [2, 5, 8, 10]

    for wanted, place in [(-5, 0), (2, 0), (3, 1), (5, 1), (6, 2), (8, 2), (10, 3), (10**9, 4)]:
        found = rows.preview_rows(platform, OWNER, version.id, limit=2, from_number=wanted)
        assert (found.offset, [row.number for row in found.items]) == (place, numbers[place : place + 2])


def test_the_first_rows_of_a_large_file_are_shown_before_it_has_been_read(platform: Platform, project_id: str) -> None:
    content = orjson.dumps({"question": "q" * 1000, "answer": "a" * 1000}) + b"\n"
    version = bring_in(platform, project_id, content * (rows.READ_AT_ONCE_BYTES // len(content) + 1))

    head = rows.preview_rows(platform, OWNER, version.id, limit=20)
    assert (len(head.items), head.total, head.next, list(head.columns)) == (20, None, 20, ["question", "answer"])
    rows.preview_rows(platform, OWNER, version.id, offset=20, limit=20)  # whoever goes on waits for the table
    whole = rows.preview_rows(platform, OWNER, version.id, limit=20)
    assert (whole.total, whole.next, whole.items) == (len(content * (rows.READ_AT_ONCE_BYTES // len(content) + 1)) // len(content), 20, head.items)


def test_a_row_that_is_shown_in_part_says_so(platform: Platform, project_id: str) -> None:
    version = bring_in(platform, project_id, orjson.dumps({"text": "x" * 30_000}) + b"\n" + orjson.dumps({"text": "y", "parts": ["z"] * 9000}) + b"\n")

    long, list_ = rows.preview_rows(platform, OWNER, version.id).items
    assert (long.is_cut, list_.is_cut) == (True, True) and len(long.row["text"]) < 30_000 if long.row else False


def test_rows_are_replaced_and_deleted_in_a_new_version(platform: Platform, project_id: str) -> None:
    version = bring_in(platform, project_id)

    made = rows.edit_rows(platform, OWNER, version.id, RowEdits(replace={4: {"question": "Three?", "answer": "3"}, 6: {"question": "Six?"}}, delete=[3]))

    assert (made.rows_in, made.rows_out, made.changed, made.removed, made.unreadable) == (6, 5, 2, 1, 0)
    assert (made.version.number, made.version.parent_id, made.version.dataset_id) == (2, version.id, version.dataset_id)
    shown = [row.row for row in rows.preview_rows(platform, OWNER, made.version.id).items]
    assert shown == [ROWS[0], ROWS[1], {"question": "Three?", "answer": "3"}, ROWS[4], {"question": "Six?"}]
    assert rows.preview_rows(platform, OWNER, version.id).total == 6, "the old version stays as it was"
    assert [one.number for one in datasets.list_dataset_versions(platform, OWNER, version.dataset_id).items] == [2, 1]


def test_lists_tell_of_each_newest_version_and_of_its_rows_once_it_was_looked_at(platform: Platform, project_id: str) -> None:
    version, other = bring_in(platform, project_id), bring_in(platform, project_id, b'{"question": "a", "answer": "b"}\n', name="other")
    rows.edit_rows(platform, OWNER, version.id, RowEdits(delete=[3, 6]))

    def told() -> list[tuple[Any, ...]]:
        listed = datasets.list_datasets(platform, OWNER, project_id).items
        return [(one.name, one.newest.number, one.newest.rows_in, one.newest.usable) for one in listed if one.newest is not None]

    assert told() == [("other", 1, None, None), ("rows", 2, None, None)]
    for one in (*datasets.list_dataset_versions(platform, OWNER, version.dataset_id).items, other):
        datasets.inspect_dataset(platform, OWNER, one.id)
        work(platform, "inspect")
    assert told() == [("other", 1, 1, 1), ("rows", 2, 4, 3)], "not those of the first version"


def test_who_corrects_a_version_that_somebody_else_has_gone_past_is_told(platform: Platform, project_id: str) -> None:
    version = bring_in(platform, project_id)
    rows.edit_rows(platform, OWNER, version.id, RowEdits(delete=[3]), newest=1)

    for correct in (
        lambda: rows.edit_rows(platform, OWNER, version.id, RowEdits(delete=[2]), newest=1),
        lambda: rows.map_columns(platform, OWNER, version.id, ColumnMapping(columns={"question": "prompt"}), newest=1),
    ):
        with pytest.raises(OutdatedError, match="has a newer version"):
            correct()
    assert len(datasets.list_dataset_versions(platform, OWNER, version.dataset_id).items) == 2
    assert rows.edit_rows(platform, OWNER, version.id, RowEdits(delete=[2])).version.number == 3, "beside it, knowingly"


def test_two_people_who_rename_a_dataset_do_not_overwrite_each_other(platform: Platform, project_id: str) -> None:
    version = bring_in(platform, project_id)
    seen = datasets.get_dataset(platform, OWNER, version.dataset_id).version
    datasets.change_dataset(platform, OWNER, version.dataset_id, DatasetChange(name="mine"), version=seen)

    with pytest.raises(OutdatedError, match="was changed by someone else"):
        datasets.change_dataset(platform, OWNER, version.dataset_id, DatasetChange(name="yours"), version=seen)
    assert datasets.get_dataset(platform, OWNER, version.dataset_id).name == "mine"


@pytest.mark.parametrize(
    ("edits", "error"),
    [({}, NoEffectError), ({"delete": [99]}, DataError), ({"replace": {0: {"a": 1}}}, DataError), ({"delete": [1, 2, 3, 4, 5]}, DataError)],
)
def test_edits_that_make_no_sense_make_no_version(platform: Platform, project_id: str, edits: dict[str, Any], error: type[Exception]) -> None:
    version = bring_in(platform, project_id)

    with pytest.raises(error):
        rows.edit_rows(platform, OWNER, version.id, RowEdits.model_validate(edits))
    assert len(datasets.list_dataset_versions(platform, OWNER, version.dataset_id).items) == 1


def test_columns_are_those_of_all_rows_and_none_is_lost_by_naming_them(platform: Platform, project_id: str) -> None:
    content = b"".join(orjson.dumps({"q": f"{n}?", "a": str(n)} | ({"late": n} if n > 90 else {})) + b"\n" for n in range(100))
    version = bring_in(platform, project_id, content)
    first = rows.preview_rows(platform, OWNER, version.id, limit=20)
    assert (first.columns, first.has_more_columns) == ({"q": 100, "a": 100, "late": 9}, False)

    made = rows.map_columns(platform, OWNER, version.id, ColumnMapping(columns={"q": "prompt", "a": "completion", "late": "late"}))

    assert rows.preview_rows(platform, OWNER, made.version.id).columns == {"prompt": 100, "completion": 100, "late": 9}


def test_rows_that_each_bring_columns_of_their_own_do_not_fill_the_memory(platform: Platform, project_id: str) -> None:
    content = b"".join(orjson.dumps({"text": "t", f"column {n}": n, "x" * 2000: 1}) + b"\n" for n in range(1500))
    found = rows.preview_rows(platform, OWNER, bring_in(platform, project_id, content).id, limit=1)

    assert (len(found.columns), found.columns["text"], found.has_more_columns) == (1000, 1500, True)


def test_columns_are_renamed_and_left_out(platform: Platform, project_id: str) -> None:
    version = bring_in(platform, project_id)

    made = rows.map_columns(platform, OWNER, version.id, ColumnMapping(columns={"question": "instruction"}))

    assert rows.preview_rows(platform, OWNER, made.version.id).items[0].row == {"instruction": "One?"}
    assert made.unreadable == 1
    for columns in ({"question": "a", "answer": "a"}, {"nothing": "b"}, {"question": " "}):
        with pytest.raises(DataError):
            rows.map_columns(platform, OWNER, version.id, ColumnMapping(columns=columns))


def test_what_the_doctor_found_is_put_right_with_one_click(platform: Platform, project_id: str) -> None:
    version = bring_in(platform, project_id)
    work(platform, "inspect")

    made = rows.fix_rows(platform, OWNER, version.id, Fixes())

    assert (made.rows_in, made.rows_out, made.removed, made.unreadable) == (6, 3, 2, 1)
    work(platform, "inspect")
    report = datasets.get_dataset_version(platform, OWNER, made.version.id).report or {}
    assert (report["rows_in"], report["usable"], report["fixed"], report["dropped"]) == (3, 3, 0, 0)
    with pytest.raises(NoEffectError):
        rows.fix_rows(platform, OWNER, made.version.id, Fixes())


def test_a_split_is_foretold_as_training_will_make_it(platform: Platform, project_id: str) -> None:
    made = datasets.create_dataset(platform, OWNER, project_id, NewDataset(example="danlu/zhangjiajie"))
    version = datasets.list_dataset_versions(platform, OWNER, made.id).items[0]
    work(platform, "inspect")
    usable = (datasets.get_dataset_version(platform, OWNER, version.id).report or {})["usable"]

    few = rows.preview_split(platform, OWNER, version.id, validation=0.1, test=0.2, max_examples=5)
    assert (few.train, few.validation, few.test) == (usable - 10, 5, 5)
    split = rows.preview_split(platform, OWNER, version.id, validation=0.1, test=0.2, seed=3)

    assert split.train + split.validation + split.test == usable and split.test == round(usable * 0.2)
    assert split == rows.preview_split(platform, OWNER, version.id, validation=0.1, test=0.2, seed=3)
    for shares in ({"validation": 0.5, "test": 0.5}, {"validation": -0.1}, {"test": float("nan")}):
        with pytest.raises(NoEffectError):
            rows.preview_split(platform, OWNER, version.id, **shares)


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"MZ\x90\x00\x03" + bytes(range(256)) * 40, FormatError, "is a binary file"),
        (b"%PDF-1.7\n", FormatError, "is a PDF document"),
        (b"question,answer\n", DataError, "holds no rows"),
        (b"\n \n", DataError, "holds no text"),
    ],
)
def test_what_is_no_data_is_told_by_the_preview_and_by_the_doctor(
    platform: Platform, project_id: str, content: bytes, error: type[Exception], says: str
) -> None:
    version = bring_in(platform, project_id, content, "rows.csv")

    if says != "holds no rows":  # a table of no rows is one
        with pytest.raises(error, match=says):
            rows.preview_rows(platform, OWNER, version.id)
    with pytest.raises(error, match=says):
        work(platform, "inspect")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "gb18030"])
def test_text_in_other_encodings_is_data_like_any_other(platform: Platform, project_id: str, encoding: str) -> None:
    lines = [orjson.dumps({"question": f"\u5f20\u5bb6\u754c\u5728\u54ea\u91cc\uff1f{n}", "answer": "\u5728\u6e56\u5357\u3002"}).decode() for n in range(30)]
    version = bring_in(platform, project_id, "\n".join(lines).encode(encoding))

    found = rows.preview_rows(platform, OWNER, version.id, limit=1)
    assert (found.total, found.items[0].row) == (30, orjson.loads(lines[0]))


@pytest.mark.parametrize(
    ("row", "objective", "parts"),
    [({"prompt": "Q?", "chosen": "good", "rejected": "bad"}, "dpo", ["good", "bad"]), ({"text": "Once upon a time."}, "pretrain", ["Once upon a time."])],
)
def test_an_example_is_shown_for_the_objective_that_the_data_fits(
    platform: Platform, project_id: str, row: dict[str, str], objective: str, parts: list[str]
) -> None:
    version = bring_in(platform, project_id, b"".join(orjson.dumps(row | {"n": n}) + b"\n" for n in range(5)))
    datasets.show_example(platform, OWNER, version.id, 3, datasets.ExampleView(objective=objective))

    blocks = work(platform, "show_example")["blocks"]

    trained = ["".join(token for token, is_trained in zip(one["tokens"], one["loss_mask"], strict=True) if is_trained) for one in blocks]
    assert len(trained) == len(parts) and all(part[1:] in text for part, text in zip(parts, trained, strict=True))


def test_an_example_is_shown_as_a_model_reads_it(platform: Platform, project_id: str) -> None:
    version = bring_in(platform, project_id)
    datasets.show_example(platform, OWNER, version.id, 2, datasets.ExampleView())

    shown = work(platform, "show_example")

    (block,) = shown["blocks"]
    trained = "".join(token for token, is_trained in zip(block["tokens"], block["loss_mask"], strict=True) if is_trained)
    assert "2" in trained and "Two" not in trained and "Two" in "".join(block["tokens"])


@pytest.mark.parametrize("name", ["/etc", "../../models", "~/secret", "danlu/none"])
def test_a_folder_of_the_server_is_no_base_model_to_show_with(platform: Platform, project_id: str, name: str) -> None:
    version = bring_in(platform, project_id)

    with pytest.raises(UnknownNameError):
        datasets.show_example(platform, OWNER, version.id, 2, datasets.ExampleView(base_model=name))


def test_a_dataset_is_renamed_and_stays_while_a_run_rests_on_it(platform: Platform, project_id: str) -> None:
    version, other = bring_in(platform, project_id), bring_in(platform, project_id, name="other")
    renamed = datasets.change_dataset(platform, OWNER, version.dataset_id, DatasetChange(name="  新 名字 <b>x</b> "))
    assert renamed.name == "新 名字 <b>x</b>"
    with pytest.raises(ConflictError, match="exists already"):
        datasets.change_dataset(platform, OWNER, other.dataset_id, DatasetChange(name=renamed.name))
    with pytest.raises(ConflictError, match="exists already"):
        bring_in(platform, project_id, name=renamed.name)
    with platform.database.writing() as connection:
        columns = "id, project_id, name, state, recipe, base_model, dataset_version_id, created_at, updated_at, version"
        connection.execute(text(f"INSERT INTO runs ({columns}) VALUES ('run_1', :p, '', '', '{{}}', '', :v, 0, 0, 1)"), {"p": project_id, "v": version.id})

    with pytest.raises(ConflictError, match="still used") as caught:
        datasets.delete_dataset(platform, OWNER, version.dataset_id)
    datasets.delete_dataset(platform, OWNER, other.dataset_id)

    assert "run_1" in caught.value.why
    assert [found.id for found in datasets.list_datasets(platform, OWNER, project_id).items] == [version.dataset_id]
    with pytest.raises(NotFoundError):
        datasets.get_dataset_version(platform, OWNER, other.id)


@pytest.mark.parametrize("name", ["", "   ", "x" * 10_000, "a\x1b[31mb", "a\u202eb", "line\nbreak", "\ud800", "support@2"])
def test_names_that_could_harm_are_refused(name: str) -> None:
    with pytest.raises((ValidationError, UnicodeError)):
        DatasetChange(name=name)


def test_a_report_goes_to_its_version_only(platform: Platform, project_id: str) -> None:
    version = bring_in(platform, project_id)
    with platform.database.writing() as connection:
        datasets.datasets.keep_report(connection, {"dataset_version_id": version.id, "digest": "0" * 64}, {"report": {"forged": True}})
        datasets.datasets.keep_report(connection, {}, {"report": {}})

    assert datasets.get_dataset_version(platform, OWNER, version.id).report is None


def test_only_bundled_examples_are_examples(platform: Platform, project_id: str) -> None:
    assert "danlu/zhangjiajie" in datasets.list_examples(platform, OWNER)
    for name in ("../../../etc/passwd", "general", "danlu/none", ""):
        with pytest.raises(NotFoundError):
            datasets.create_dataset(platform, OWNER, project_id, NewDataset(example=name))
