"""Starting, finding and going on with runs."""

import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from danlu.errors import DataError, ExportError, ModelError, NoEffectError, OutOfMemoryError, RecipeError, RunBusyError, RunNotFoundError
from danlu.files import read_json, read_jsonl, write_json
from danlu.recipe.load import load_recipe
from danlu.recipe.recipe import Recipe
from danlu.run_dir import RunDir
from danlu.services import exports, pipeline, runs
from danlu.services.runs import run
from models import recipe_values, write_model


class Enough(Exception):
    """Raised by a listener to end a run at an event."""


def until(kind: str, **wanted: object) -> Any:
    def listen(heard: str, fields: dict[str, Any]) -> None:
        if heard == kind and wanted.items() <= fields.items():
            raise Enough

    return listen


@pytest.fixture
def recipe(small_model: Path, rows_file: Path) -> Recipe:
    return load_recipe(values=recipe_values(small_model, rows_file, evaluation={"suites": [], "metrics": []}))


def test_two_processes_cannot_work_on_one_run(tmp_path: Path, recipe: Recipe) -> None:
    refusals: list[BaseException] = []

    def again(kind: str, fields: dict[str, Any]) -> None:
        if kind == "stage" and fields["stage"] == "data":
            thread = threading.Thread(target=try_again)
            thread.start()
            thread.join()

    def try_again() -> None:
        for start in (lambda: run(recipe, run_dir=tmp_path / "run"), lambda: runs.resume(str(tmp_path / "run"))):
            with pytest.raises(RunBusyError, match="in use by process") as caught:
                start()
            refusals.append(caught.value)

    assert run(recipe, run_dir=tmp_path / "run", listeners=[again]).outcome == "finished"
    assert len(refusals) == 2


def test_a_folder_belongs_to_the_recipe_it_was_begun_with(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(Enough):
        run(recipe, run_dir=tmp_path, listeners=[until("stage", stage="data")])

    with pytest.raises(NoEffectError, match="belongs to a run with another recipe"):
        run(recipe.model_copy(update={"seed": 1}), run_dir=tmp_path)


def test_an_unfinished_run_is_found_again_and_a_finished_one_is_not_repeated(recipe: Recipe) -> None:
    with pytest.raises(Enough):
        run(recipe, listeners=[until("stage", stage="training")])
    [row] = runs.list_runs()
    assert row["state"] == "failed" and row["verdict"] is None

    result = run(recipe)
    assert result.run_dir.id == row["id"] and result.outcome == "finished"
    assert [event["kind"] for event in read_jsonl(result.run_dir.events)].count("continued") == 1

    other = run(recipe, listeners=[])
    assert other.run_dir.id != row["id"]
    assert [row["state"] for row in runs.list_runs()] == ["finished", "finished"]


def test_a_new_run_can_be_asked_for(recipe: Recipe) -> None:
    with pytest.raises(Enough):
        run(recipe, listeners=[until("stage", stage="data")])
    with pytest.raises(Enough):
        run(recipe, new=True, listeners=[until("stage", stage="data")])

    assert len(runs.list_runs()) == 2


def test_the_same_name_in_another_folder_is_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_model: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        rows = [{"instruction": f"{name} {n}", "output": name} for n in range(9)]
        (tmp_path / name / "rows.jsonl").write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    recipe = load_recipe(values=recipe_values(small_model, Path("rows.jsonl")))
    for name in ("one", "two"):
        monkeypatch.chdir(tmp_path / name)
        with pytest.raises(Enough):
            run(recipe, listeners=[until("stage", stage="training")])

    listed = runs.list_runs()
    assert len(listed) == 2
    for row in listed:
        run_dir = runs.open_run(row["id"])
        folder = Path(run_dir.read_record()["paths"]["rows.jsonl"]).parent
        assert {example["messages"][-1]["content"] for example in read_jsonl(run_dir.data / "train.jsonl")} == {folder.name}
        with pytest.raises(NoEffectError, match="belongs to a run with another recipe"):
            monkeypatch.chdir(tmp_path / ({"one", "two"} - {folder.name}).pop())
            run(recipe, run_dir=run_dir.path)


def test_a_run_goes_on_from_anywhere_and_without_the_file_it_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_model: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("rows.jsonl").write_bytes(b"\n".join(orjson.dumps({"instruction": f"{n}", "output": f"{n + 1}"}) for n in range(20)))
    recipe = load_recipe(values=recipe_values(small_model, Path("rows.jsonl"), evaluation={"suites": [], "metrics": []}))
    with pytest.raises(Enough):
        run(recipe, listeners=[until("stage", stage="data")])
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(Enough):
        runs.resume("last", listeners=[until("stage", stage="training")])
    (tmp_path / "here/rows.jsonl").unlink()

    assert runs.resume("last").outcome == "finished"


def test_a_run_of_another_base_model_under_the_same_name_does_not_go_on(tmp_path: Path, rows_file: Path) -> None:
    model = write_model(tmp_path / "model")
    recipe = load_recipe(values=recipe_values(model, rows_file))
    with pytest.raises(Enough):
        run(recipe, run_dir=tmp_path / "run", listeners=[until("forecast")])
    write_model(model, seed=9)

    with pytest.raises(ModelError, match="is not the one this run was made from"):
        run(recipe, run_dir=tmp_path / "run")


def test_an_unfinished_run_has_nothing_to_export_to_report_or_to_talk_to(tmp_path: Path, recipe: Recipe) -> None:
    from danlu.services.chat import ChatSession

    with pytest.raises(Enough):
        run(recipe, run_dir=tmp_path / "run", listeners=[until("stage", stage="data")])

    for attempt in (
        lambda: exports.export(RunDir(tmp_path / "run"), "merged"),
        lambda: ChatSession(str(tmp_path / "run")),
        lambda: runs.report(str(tmp_path / "run")),
    ):
        with pytest.raises((ExportError, RunNotFoundError, NoEffectError)) as caught:
            attempt()
        assert "danlu resume run" in caught.value.fix


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")])
def test_out_of_memory_in_any_stage_is_told_as_that(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pipeline, "_prepare", fail)

    with pytest.raises(OutOfMemoryError, match="ran out of memory"):
        run(recipe, run_dir=tmp_path)
    assert read_json(tmp_path / "run.json")["state"] == "failed"


def test_a_run_whose_recipe_was_damaged_by_hand_is_told(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(Enough):
        run(recipe, run_dir=tmp_path, listeners=[until("stage", stage="training")])
    record = read_json(tmp_path / "run.json")
    write_json(tmp_path / "run.json", record | {"written": record["written"] | {"seed": -1}})

    with pytest.raises(RecipeError, match="seed"):
        runs.resume(str(tmp_path))


def test_a_warning_about_the_data_does_not_end_a_run(tmp_path: Path, small_model: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps({"instruction": f"who {n}?", "output": f"I am {{{{name}}}} {n}" if n % 2 else ""}) for n in range(20)))
    heard: list[dict[str, Any]] = []
    recipe = load_recipe(values=recipe_values(small_model, path, evaluation={"suites": [], "metrics": []}))

    result = run(recipe, run_dir=tmp_path / "run", listeners=[lambda kind, fields: heard.append(fields) if kind == "warning" else None])

    assert result.outcome == "finished"
    assert {"placeholders", "many_dropped"} <= {fields["name"] for fields in heard}
    assert all(fields["en"] and fields["zh"] for fields in heard)


def test_a_data_file_that_has_gone_before_it_was_read_is_told(tmp_path: Path, small_model: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps({"instruction": f"{n}", "output": f"{n}"}) for n in range(9)))
    with pytest.raises(Enough):
        run(load_recipe(values=recipe_values(small_model, path)), listeners=[until("stage", stage="data")])
    path.unlink()

    with pytest.raises(DataError, match="there is no data file"):
        runs.resume("last")
