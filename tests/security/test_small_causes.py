"""Attacks by small requests with large effects: deep nesting, settings without end, content that grows, all threads of the server at once."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from doors import application, program
from pydantic import BaseModel, ValidationError

from danlu.errors import DanluError, NoEffectError, NoRoomError, NotFoundError, RecipeError, TooLargeError, TooManyRequestsError
from danlu.recipe.load import validate, with_settings
from danlu.recipe.sweep import SweepConfig, parse_range
from danlu.services.platform import datasets, keys, models, projects, recipes, rows, runs, storage, sweeps, uploads, views, votes
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.recipes import Preview
from danlu.services.platform.rows import ColumnMapping
from danlu.services.platform.sweeps import SweepPreview
from danlu.services.platform.uploads import NewUpload
from danlu.services.platform.views import Draft
from danlu.services.platform.votes import NewPairs, NewVote
from danlu.store.datasets import DatasetVersion

OWNER = Actor.local()
RECIPE: dict[str, Any] = {"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}
SOURCES = Path(__file__).parents[2] / "src"


@pytest.fixture
def project(platform: Platform) -> str:
    return projects.create_project(platform, OWNER, NewProject(name="p")).id


def bring_in(platform: Platform, project: str, content: bytes) -> DatasetVersion:
    stored = platform.artifacts.put_bytes(content)
    storage.cached_file(platform, stored.digest, "rows.jsonl")
    with platform.database.writing() as connection:
        return datasets.add_version(connection, platform, project, stored, file_name="rows.jsonl", name="rows")


def deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize("depth", [150, 300, 900])
def test_a_body_that_is_nested_deeper_than_it_can_be_written_is_refused(platform: Platform, project: str, depth: int) -> None:
    client = program(application(platform))
    body = b'{"a":' * depth + b"1" + b"}" * depth
    asked: dict[str, bytes] = {
        "/api/v1/me/drafts/new_run": b'{"values": %b}' % body,
        "/api/v1/recipes/check": b'{"recipe": %b}' % body,
        f"/api/v1/projects/{project}/sweeps/preview": b'{"recipe": {}, "sweep": {"set": {"x": [%b]}}}' % body,
    }

    for path, content in asked.items():
        headers = {"Content-Type": "application/json"} | ({} if "drafts" in path else {"Idempotency-Key": f"k{depth}"})
        answer = client.request("PUT" if "drafts" in path else "POST", path, content=content, headers=headers)
        assert answer.status_code in (400, 422), (path, answer.text)


def test_a_body_that_is_long_and_flat_is_taken(platform: Platform) -> None:
    client = program(application(platform))
    values = {"values": {f"k{n}": [n, {"b": [n]}] for n in range(500)}}

    assert client.put("/api/v1/me/drafts/new_run", json=values).json() == values
    at_most = {"values": deep(90)}
    assert client.put("/api/v1/me/drafts/new_run", json=at_most).json() == at_most


@pytest.mark.parametrize("path", ["a." * 100_000 + "a", "data." * 17 + "x", "data" + "." * 5000])
def test_a_setting_without_end_is_refused(path: str) -> None:
    with pytest.raises(RecipeError, match="is no setting"):
        with_settings(validate(RECIPE, source="recipe"), {path: 1})


def test_a_sweep_over_thousands_of_settings_is_refused(platform: Platform, project: str) -> None:
    many = {f"a{number}": [1, 2] for number in range(20_000)}  # 2 to the 20,000th members: a number that cannot even be written

    with pytest.raises(ValidationError):
        SweepConfig.model_validate({"set": many})
    told = sweeps.preview_sweep(platform, OWNER, project, SweepPreview(recipe=RECIPE, sweep={"set": many}))
    assert not told.is_ready and told.num_members == 0 and len(told.mistakes[0]) < 2000


HOSTILE = ["1|[", "1|" + "[" * 5000, "1|{a: &a [*a]}", "1|!!python/object/apply:os.system [id]", "1|2001-99-99", "1|" + "9" * 5000, "1|? : ?", "1|*x", "1|\x00"]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_values_to_search_are_words_and_numbers_and_never_parsed_further(platform: Platform, project: str, text: str) -> None:
    found = parse_range("optim.learning_rate", text).values

    assert found[0] == 1 and found[1] == text[2:]
    told = sweeps.preview_sweep(platform, OWNER, project, SweepPreview(recipe=RECIPE, sweep={"trials": 2, "space": {"optim.learning_rate": text}}))
    assert told.num_members == 2


def test_words_numbers_and_truth_values_are_told_apart() -> None:
    assert parse_range("x", "1e-3|4|true|null| all-linear |'8'|nan").values == [1e-3, 4, True, None, "all-linear", "8", "nan"]
    for text in ("nan..1", "1..inf", "-inf..1", "2..1", "0..1:log"):
        with pytest.raises(ValueError, match="is no range"):
            parse_range("x", text)


def test_renaming_a_column_cannot_make_small_data_fill_the_disk(platform: Platform, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "CHECK_EVERY_BYTES", 100_000)
    version = bring_in(platform, project, b'{"a": 1}\n' * 5000)
    bounded = replace(platform, settings=replace(platform.settings, project_quota_bytes=1_000_000))
    put: list[Path] = []

    with pytest.raises(ValidationError):
        ColumnMapping(columns={"a": "x" * 100_000})
    with pytest.raises(NoRoomError, match="project's share"):
        rows.map_columns(bounded, OWNER, version.id, ColumnMapping(columns={"a": "x" * 1000}))
    put += (platform.home / "scratch").iterdir()
    assert put == [] and rows.map_columns(bounded, OWNER, version.id, ColumnMapping(columns={"a": "b"})).rows_out == 5000


def test_what_grows_ends_where_the_disk_does(platform: Platform, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "CHECK_EVERY_BYTES", 1000)
    written: list[int] = []

    def lines() -> Any:
        for number in range(10**9):
            if number == 3:
                platform.artifacts.min_free_bytes = 10**18  # as when others have filled the disk meanwhile
            written.append(number)
            yield b"x" * 1000

    with pytest.raises(NoRoomError, match="enough room on the disk"):
        storage.write_lines(platform, project, tmp_path / "data", lines())
    assert len(written) == 4


def test_votes_are_counted_without_holding_all_of_them(platform: Platform, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [{"role": "user", "content": "Which one?"}]
    for number in range(120):
        shown = [{"model": "a", "text": f"good {number}"}, {"model": "b", "text": "bad"}]
        votes.create_vote(platform, OWNER, project, NewVote.model_validate({"messages": asked, "answers": shown, "winner": 0}))

    tally = votes.count_votes(platform, OWNER, project)
    assert (tally.num_votes, tally.num_pairs, tally.models[0].num_better) == (120, 120, 120)
    pairs = [orjson.loads(line) for line in votes.export_pairs(platform, OWNER, project).splitlines()]
    assert [pair["chosen"] for pair in pairs] == [f"good {number}" for number in range(120)]
    monkeypatch.setattr(votes, "MAX_EXPORT_BYTES", 1000)
    with pytest.raises(TooLargeError, match="too many for one answer"):
        votes.export_pairs(platform, OWNER, project)
    made = votes.make_pairs_dataset(platform, OWNER, project, NewPairs())
    assert rows.preview_rows(platform, OWNER, made.id).total == 120
    assert list((platform.home / "scratch").iterdir()) == []


def test_previews_cannot_take_all_threads_of_the_server(platform: Platform, project: str) -> None:
    """Each waits in one of twelve threads; whoever comes when some wait already is told to come again."""
    outcomes: list[str] = []

    def ask() -> None:
        try:
            recipes.preview_run(platform, OWNER, project, Preview(recipe=RECIPE))
            outcomes.append("answered")
        except TooManyRequestsError:
            outcomes.append("refused")

    held = [recipes._AT_ONCE.acquire(), recipes._AT_ONCE.acquire()]  # two that take their time
    threads = [threading.Thread(target=ask, daemon=True) for _ in range(7)]
    try:
        for thread in threads:
            thread.start()
        wait_for(lambda: len(outcomes) == 3)
        assert outcomes == ["refused"] * 3 and recipes.check_recipe(platform, OWNER, recipes.RecipeText(recipe=RECIPE)).is_valid
    finally:
        for _ in held:
            recipes._AT_ONCE.release()
    for thread in threads:
        thread.join(120)
    assert sorted(outcomes) == ["answered"] * 4 + ["refused"] * 3


def wait_for(condition: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(3000):
        if condition():
            return
        waited.wait(0.02)
    raise AssertionError("it did not come")


NAMED: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (NewProject, {}),
    (projects.ProjectChange, {}),
    (runs.NewRun, {"recipe": RECIPE}),
    (runs.RunChange, {}),
    (models.NewModel, {}),
    (keys.NewKey, {}),
]


@pytest.mark.parametrize(("body", "more"), NAMED, ids=[body.__name__ for body, _ in NAMED])
def test_no_name_steers_a_terminal_or_turns_the_direction_of_text(body: type[BaseModel], more: dict[str, Any]) -> None:
    for name in ("a\x1b[2Jb", "a\u202eb", "line\nbreak", "a\u2066b", "\u2028", "a\x9bb"):
        with pytest.raises(ValidationError):
            body.model_validate({"name": name, **more})
    assert body.model_validate({"name": "<b>\u70bc\u4e39  & cafe\u0301", **more}).model_dump()["name"] == "<b>\u70bc\u4e39 & caf\u00e9"


def test_an_upload_does_not_tell_which_datasets_others_have(platform: Platform, project: str) -> None:
    other = projects.create_project(platform, OWNER, NewProject(name="q")).id
    theirs = bring_in(platform, other, b'{"a": 1}\n').dataset_id
    said = set()

    for dataset in (theirs, "dst_0000000000000000"):
        with pytest.raises(NotFoundError) as caught:
            uploads.begin_upload(platform, OWNER, project, NewUpload(file_name="a.jsonl", size_bytes=1, dataset=dataset))
        said.add((caught.value.what, caught.value.why, caught.value.fix))
    assert len(said) == 1


@pytest.mark.parametrize("key", [{"key_role": "viewer"}, {"key_role": "admin"}, {"key_project_id": "prj_x", "key_role": "editor"}])
def test_an_api_key_does_not_touch_the_forms_that_its_owner_is_filling_in(platform: Platform, key: dict[str, Any]) -> None:
    views.save_draft(platform, OWNER, "new_run", Draft(values={"name": "secret plan"}))
    program_of_owner = replace(OWNER, **key)
    tries: list[Callable[[], object]] = [
        lambda: views.get_draft(platform, program_of_owner, "new_run"),
        lambda: views.save_draft(platform, program_of_owner, "new_run", Draft(values={"name": "mine"})),
        lambda: views.change_view(platform, program_of_owner, views.ViewChange(language="zh")),
    ]

    for one in tries:
        with pytest.raises(DanluError, match="API key"):
            one()
    assert views.get_draft(platform, OWNER, "new_run").values == {"name": "secret plan"}


def test_programs_that_danlu_starts_import_nothing_from_the_folder_they_are_started_in() -> None:
    """A folder with data may hold an orjson.py of somebody else: `python -m` and `-c` would import it first, `-P` does not."""
    starts = re.compile(r"sys\.executable,\s*(.{4})")
    found = {str(path): starts.findall(path.read_text("utf-8")) for path in SOURCES.rglob("*.py") if "sys.executable," in path.read_text("utf-8")}

    assert len(found) >= 8 and {word for words in found.values() for word in words} == {'"-P"'}, found


def test_a_preview_does_not_run_what_lies_beside_the_server(platform: Platform, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in ("orjson", "yaml", "numpy"):
        (trap / f"{name}.py").write_text("import os; open(os.path.join(os.path.dirname(__file__), 'sprung'), 'w'); raise SystemExit(3)\n")
    monkeypatch.chdir(trap)

    told = recipes.preview_run(platform, OWNER, project, Preview(recipe=RECIPE))

    assert not (trap / "sprung").exists() and told.recipe is not None


def test_a_sweep_of_too_many_members_says_how_many() -> None:
    with pytest.raises(NoEffectError, match="a sweep of 1000 members"):
        sweeps._config({"set": {"seed": list(range(1000))}})
