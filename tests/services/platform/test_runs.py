"""Operations on runs and what comes out of them, through a real database: rights inside bodies, life cycle, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import insert

from danlu.errors import ConflictError, DanluError, DataError, ForbiddenError, NoEffectError, NotFoundError, RecipeError, UnknownNameError
from danlu.services.platform import chat, datasets, inputs, jobs, models, projects, proofs, recipes, runs, sweeps, votes, watching
from danlu.services.platform.access import Actor
from danlu.services.platform.chat import EngineChoice, Question
from danlu.services.platform.datasets import NewDataset
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.proofs import Comparison
from danlu.services.platform.recipes import Preview, RecipeText
from danlu.services.platform.runs import Duplicate, NewRun, NextRound, RunChange, Stop
from danlu.services.platform.storage import cached
from danlu.services.platform.sweeps import NewMerge, NewSweep
from danlu.services.platform.votes import NewPairs, NewRating, NewVote
from danlu.store import jobs as queue
from danlu.store import tables
from danlu.store.datasets import DATASET_VERSIONS, DATASETS
from danlu.store.runs import EVALUATIONS, MODELS, RUNS, Run
from danlu.store.workers import ONLY_HOME
from danlu.worker import ingest

OWNER = Actor.local()
RECIPE: dict[str, Any] = {"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}


@pytest.fixture
def project(platform: Platform) -> str:
    return projects.create_project(platform, OWNER, NewProject(name="p")).id


@pytest.fixture
def editor(platform: Platform, project: str) -> Actor:
    """An editor of the project, who is nobody elsewhere."""
    with platform.database.writing() as connection:
        row = {"id": "usr_ed", "name": "ed", "name_key": "ed", "is_admin": False, "is_active": True, "preferences": {}}
        connection.execute(insert(tables.users).values(**row, created_at=0.0, updated_at=0.0, version=1))
        connection.execute(insert(tables.members).values(project_id=project, user_id="usr_ed", role="editor"))
    return Actor(user_id="usr_ed", name="ed", is_signed_in=True)


def submit(platform: Platform, project: str, actor: Actor = OWNER, **values: Any) -> Run:
    return runs.submit_run(platform, actor, project, NewRun(recipe=RECIPE | values))


def act(platform: Platform, run: Run, *states: str) -> Run:
    """Let a worker do with the run's job what a real one would: start it and end it."""
    for state in states:
        with platform.database.writing() as connection:
            job = runs.carrier(connection, run.id)
            if state == "running":
                claimed = queue.claim(connection, worker_id="w", home=ONLY_HOME, total_slots=100)
                assert claimed is not None and claimed.id == job.id
            else:
                queue.finish(connection, job.id, job.attempt, state, error={"code": "DL500"} if state == "failed" else None)
    return runs.get_run(platform, OWNER, run.id)


def finished(platform: Platform, project: str, *, report: dict[str, Any] | None = None, **values: Any) -> Run:
    run = act(platform, submit(platform, project, **values), "running", "succeeded")
    with platform.database.writing() as connection:
        RUNS.update(connection, run.id, resolved=run.recipe | {"method": {"type": "lora", "rank": 8}})
        EVALUATIONS.insert(connection, project_id=project, run_id=run.id, report=report or {"verdict": None, "metrics": {}})
    return runs.get_run(platform, OWNER, run.id)


def dataset(platform: Platform, project: str, name: str, *contents: bytes) -> None:
    """A dataset with a version for each content."""
    folder = platform.home / "incoming"
    folder.mkdir(exist_ok=True)
    rows = []
    for number, content in enumerate(contents, 1):
        (folder / "f").write_bytes(content)
        rows.append((number, platform.artifacts.put_file(folder / "f")))
    with platform.database.writing() as connection:
        made = DATASETS.insert(connection, project_id=project, name=name, created_by=None)
        for number, stored in rows:
            values = {"dataset_id": made.id, "number": number, "file_name": f"{name}.jsonl", "digest": stored.digest, "size_bytes": stored.size_bytes}
            DATASET_VERSIONS.insert(connection, project_id=project, report=None, parent_id=None, created_by=None, **values)


def test_the_state_of_a_run_is_that_of_its_job_in_every_transaction(platform: Platform, project: str) -> None:
    run = submit(platform, project)
    seen = [(run.state, run.started_at, run.finished_at)]
    job = runs.list_run_jobs(platform, OWNER, run.id)[0]
    for change in (
        lambda: runs.stop_run(platform, OWNER, run.id, Stop()),
        lambda: runs.resume_run(platform, OWNER, run.id),
        lambda: act(platform, run, "running"),
        lambda: runs.stop_run(platform, OWNER, run.id, Stop()),
        lambda: act(platform, run, "paused"),
        lambda: jobs.resume_job(platform, OWNER, job.id),
        lambda: act(platform, run, "running", "failed"),
        lambda: runs.resume_run(platform, OWNER, run.id),
        lambda: jobs.cancel_job(platform, OWNER, job.id),
    ):
        change()
        now = runs.get_run(platform, OWNER, run.id)
        seen.append((now.state, now.started_at is not None, now.finished_at is not None))
        assert (now.error is not None) == (now.state == "failed")
    states = ["queued", "paused", "queued", "running", "running", "paused", "queued", "failed", "queued", "cancelled"]
    assert [state for state, *_ in seen] == states
    assert [over for *_, over in seen[1:]] == [state in ("failed", "cancelled") for state in states[1:]]
    with pytest.raises(ConflictError):
        runs.stop_run(platform, OWNER, run.id, Stop())


def test_a_run_whose_need_fails_is_cancelled_with_its_job(platform: Platform, project: str) -> None:
    with platform.database.writing() as connection:
        first = queue.submit(connection, project_id=project, kind="inspect", payload={})
        run = RUNS.insert(connection, project_id=project, name="r", state="queued", recipe={}, base_model="b")
        queue.submit(connection, project_id=project, kind="train", payload={}, run_id=run.id, needs=[first.id])
        queue.cancel(connection, first.id)

    assert runs.get_run(platform, OWNER, run.id).state == "cancelled"


def test_a_dataset_is_pinned_fetched_and_verified(platform: Platform, project: str, editor: Actor) -> None:
    dataset(platform, project, "chats", b'{"instruction": "a", "output": "b"}\n', b'{"instruction": "c", "output": "d"}\n')

    run = submit(platform, project, editor, dataset="chats", data={"mix": {"chats@1": 0.5}})

    job = runs.list_run_jobs(platform, OWNER, run.id)[0]
    assert (run.recipe["dataset"], run.recipe["data"]["mix"], run.name) == ("chats@2", {"chats@1": 0.5}, "chats@2")
    assert run.dataset_version_id is not None
    files = {name: Path(path).read_bytes() for name, path in job.payload["paths"].items()}
    assert files == {"chats@2": b'{"instruction": "c", "output": "d"}\n', "chats@1": b'{"instruction": "a", "output": "b"}\n'}
    with pytest.raises(NotFoundError, match="no dataset"):
        submit(platform, project, editor, dataset="chats@3")


@pytest.mark.parametrize(
    "values",
    [
        {"dataset": "/etc/passwd"},
        {"dataset": "../../../../etc/passwd"},
        {"dataset": "~/.ssh/id_rsa"},
        {"base_model": "/etc"},
        {"base_model": "./x"},
        {"base_model": "a/../../b"},
        {"data": {"mix": {"/etc/passwd": 0.5}}},
        {"evaluation": {"suites": ["heldout", {"type": "retention", "file": "/etc/passwd"}]}},
        {"start_from": "/var/lib/danlu/runs/x"},
        {"start_from": "../x"},
        {"data": {"replay": {"run": "/tmp"}}},
    ],
)
def test_no_setting_reaches_a_file_of_the_server(platform: Platform, project: str, editor: Actor, values: dict[str, Any]) -> None:
    for actor in (editor, OWNER):  # an administrator may name files, below the roots only
        with pytest.raises((ForbiddenError, NotFoundError, UnknownNameError)):
            submit(platform, project, actor, **values)
    preview = recipes.preview_run(platform, editor, project, Preview(recipe=RECIPE | values))
    assert not preview.is_ready and preview.problems[0].code in ("DL731", "DL710", "DL101") and "root:" not in str(preview)


def test_an_administrator_may_name_files_below_the_roots_and_links_do_not_lead_out(platform: Platform, project: str, editor: Actor) -> None:
    folder = platform.home / "data"
    folder.mkdir()
    (folder / "rows.jsonl").write_bytes(b'{"instruction": "a", "output": "b"}\n')
    (folder / "link.jsonl").symlink_to("/etc/passwd")

    assert submit(platform, project, dataset=str(folder / "rows.jsonl")).state == "queued"
    with pytest.raises(ForbiddenError):
        submit(platform, project, editor, dataset=str(folder / "rows.jsonl"))
    with pytest.raises(ForbiddenError, match="outside"):
        submit(platform, project, dataset=str(folder / "link.jsonl"))


def test_a_base_model_is_embedded_in_the_home_folder_or_of_the_hub(platform: Platform, project: str, editor: Actor, small_model: Path) -> None:
    (platform.home / "models").mkdir()
    (platform.home / "models" / "mine").symlink_to(small_model)

    assert [choice.name for choice in models.list_base_models(platform, editor)] == ["danlu/tiny", "local/mine"]
    assert runs.list_run_jobs(platform, OWNER, submit(platform, project, editor, base_model="local/mine").id)[0].payload["paths"]["local/mine"] == str(
        small_model
    )
    assert submit(platform, project, editor, base_model="Qwen/Qwen3-0.6B@main").base_model == "Qwen/Qwen3-0.6B@main"
    for name in ("local/none", "local/../x", "danlu/huge", "nothing", "local/.hidden"):
        with pytest.raises((UnknownNameError, ForbiddenError)):
            submit(platform, project, editor, base_model=name)


def test_ids_of_other_projects_in_bodies_are_unknown(platform: Platform, project: str, editor: Actor) -> None:
    other = projects.create_project(platform, OWNER, NewProject(name="other")).id
    theirs, mine = finished(platform, other), finished(platform, project)
    dataset(platform, other, "secret", b'{"instruction": "a", "output": "b"}\n')
    attempts: list[Callable[[], Any]] = [
        lambda: submit(platform, project, editor, start_from=theirs.id),
        lambda: submit(platform, project, editor, data={"replay": {"run": theirs.id}}),
        lambda: submit(platform, project, editor, dataset="secret@1"),
        lambda: runs.continue_run(platform, editor, mine.id, NextRound(dataset="secret")),
        lambda: runs.duplicate_run(platform, editor, mine.id, Duplicate(settings={"dataset": "secret@1"})),
        lambda: sweeps.submit_merge(platform, editor, project, NewMerge(run_ids=[mine.id, theirs.id])),
        lambda: sweeps.submit_sweep(platform, editor, project, NewSweep(recipe=RECIPE | {"dataset": "secret"}, sweep={"set": {"method.rank": [2, 4]}})),
        lambda: proofs.compare_runs(platform, editor, project, Comparison(run_ids=[mine.id, theirs.id])),
        lambda: chat.answer(platform, editor, project, Question.model_validate({"model": theirs.id, "messages": [{"role": "user", "content": "x"}]})),
        lambda: chat.stream_answer(platform, editor, project, Question.model_validate({"model": theirs.id, "messages": [{"role": "user", "content": "x"}]})),
        lambda: chat.load_engine(platform, editor, project, EngineChoice(model=theirs.id)),
    ]
    for attempt in attempts:
        with pytest.raises((NotFoundError, UnknownNameError)):
            attempt()
    rating = votes.create_rating(
        platform, editor, project, NewRating.model_validate({"messages": [{"role": "user", "content": "q"}], "answer": "a", "model": theirs.id, "score": 5})
    )
    assert rating.run_id is None
    with pytest.raises(NotFoundError):
        list(chat.stream_answer(platform, editor, other, Question.model_validate({"model": "danlu/tiny", "messages": [{"role": "user", "content": "x"}]})))


def test_a_round_starts_from_a_finished_run_and_keeps_it_from_being_deleted(platform: Platform, project: str) -> None:
    waiting = submit(platform, project)
    with pytest.raises(ConflictError, match="not finished"):
        runs.continue_run(platform, OWNER, waiting.id, NextRound(dataset="danlu/support-en"))
    runs.stop_run(platform, OWNER, waiting.id, Stop(outcome="discard"))
    done = finished(platform, project)

    following = runs.continue_run(platform, OWNER, done.id, NextRound(dataset="danlu/support-en", replay=0.5, settings={"optim.num_epochs": 1}))

    assert (following.recipe["start_from"], following.recipe["data"]["replay"]) == (done.id, {"run": done.id, "share": 0.5})
    assert (following.recipe["method"]["rank"], following.recipe["optim"]["num_epochs"]) == (8, 1)
    with pytest.raises(ConflictError, match="starts from it"):
        runs.delete_run(platform, OWNER, done.id)
    with pytest.raises(ConflictError, match="at work"):
        runs.delete_run(platform, OWNER, following.id)


def test_a_deleted_or_discarded_run_takes_its_files_with_it(platform: Platform, project: str) -> None:
    done, waiting = finished(platform, project), submit(platform, project)
    for run in (done, waiting):
        platform.run_folder(run.id).mkdir(parents=True)
    job_folder = platform.job_folder(runs.list_run_jobs(platform, OWNER, done.id)[0].id)
    job_folder.mkdir(parents=True)

    runs.delete_run(platform, OWNER, done.id)
    runs.stop_run(platform, OWNER, waiting.id, Stop(outcome="discard"))
    assert runs.list_runs(platform, OWNER, project).items == []
    at_work = act(platform, submit(platform, project), "running")
    runs.stop_run(platform, OWNER, at_work.id, Stop(outcome="discard"))
    ingest.catch_up(platform.database, platform.home)

    assert not platform.run_folder(done.id).exists() and not platform.run_folder(waiting.id).exists() and not job_folder.exists()
    assert runs.get_run(platform, OWNER, at_work.id).discarded_at is not None  # its process has not ended yet
    act(platform, at_work, "cancelled")
    ingest.catch_up(platform.database, platform.home)
    with pytest.raises(NotFoundError):
        runs.get_run(platform, OWNER, at_work.id)


def test_a_model_of_the_registry_keeps_its_run_and_is_numbered_by_name(platform: Platform, project: str) -> None:
    first, second = finished(platform, project), finished(platform, project)
    made = []
    for number, run in enumerate((first, second)):
        folder = platform.run_folder(run.id) / "adapter"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text(str(number))
        made.append(models.register_model(platform, OWNER, run.id, models.NewModel(name="guide")))

    assert [(model.name, model.number, model.run_id) for model in made] == [("guide", 1, first.id), ("guide", 2, second.id)]
    assert models.list_models(platform, OWNER, project, name="guide").items == made[::-1]
    with platform.database.reading() as connection:
        assert inputs.run_of(connection, project, "guide@2").id == second.id
    with pytest.raises(ConflictError, match="still used"):
        runs.delete_run(platform, OWNER, first.id)
    following = submit(platform, project, start_from="guide@2")
    assert following.recipe["start_from"] == second.id
    with pytest.raises(ConflictError, match="starts from it"):
        models.delete_model(platform, OWNER, made[1].id)
    models.delete_model(platform, OWNER, made[0].id)
    with platform.database.reading() as connection:
        assert [model.number for model in MODELS.all(connection)] == [2]


def test_a_recipe_is_checked_as_a_whole_in_values_or_as_text(platform: Platform) -> None:
    good = recipes.check_recipe(platform, OWNER, RecipeText(text="base_model: danlu/tiny\ndataset: danlu/zhangjiajie\n"))
    bad = recipes.check_recipe(platform, OWNER, RecipeText(recipe={"base_model": "", "optim": {"learning_rate": 5}, "x": 1}))

    assert good.is_valid and good.recipe is not None and good.text is not None
    assert recipes.check_recipe(platform, OWNER, RecipeText(text=good.text)).recipe == good.recipe
    assert not bad.is_valid and {line.split(":")[0] for line in bad.mistakes} == {"base_model", "dataset", "optim.learning_rate", "x"}
    for text in ("a: [", "- 1", "a: &x 1\nb: *x"):
        assert len(recipes.check_recipe(platform, OWNER, RecipeText(text=text)).mistakes) == 1
    assert not recipes.check_recipe(platform, OWNER, RecipeText()).is_valid
    assert "optim" in recipes.get_recipe_schema(platform, OWNER)["properties"]


def test_duplicating_changes_only_what_is_named(platform: Platform, project: str) -> None:
    run = submit(platform, project, method={"type": "lora", "rank": 4})

    again = runs.duplicate_run(platform, OWNER, run.id, Duplicate(settings={"method.rank": 8, "seed": 3}, name="again"))

    assert again.name == "again" and again.recipe == run.recipe | {"method": run.recipe["method"] | {"rank": 8}, "seed": 3}
    with pytest.raises(RecipeError):
        runs.duplicate_run(platform, OWNER, run.id, Duplicate(settings={"method.rank": -1}))
    assert runs.change_run(platform, OWNER, run.id, RunChange(name="n"), version=run.version).name == "n"
    with pytest.raises(ConflictError, match="changed"):
        runs.change_run(platform, OWNER, run.id, RunChange(name="m"), version=run.version)


def test_runs_side_by_side_show_where_they_differ(platform: Platform, project: str) -> None:
    reports = [{"verdict": {"label": label}, "metrics": {"nll_per_token": {"delta": delta}}} for label, delta in (("improved", -0.2), ("regressed", 0.1))]
    one, other = finished(platform, project, report=reports[0]), finished(platform, project, report=reports[1], seed=7)

    found = proofs.compare_runs(platform, OWNER, project, Comparison(run_ids=[one.id, other.id]))

    assert [(row.path, row.values) for row in found.settings] == [("seed", [0, 7])]
    assert found.same["method.rank"] == 8 and "seed" not in found.same
    assert found.metrics == {"nll_per_token": [{"delta": -0.2}, {"delta": 0.1}]}
    assert [verdict and verdict["label"] for verdict in found.verdicts] == ["improved", "regressed"]
    assert proofs.get_proof(platform, OWNER, one.id).verdict == {"label": "improved"}
    with pytest.raises(NotFoundError, match="no report yet"):
        proofs.get_proof(platform, OWNER, submit(platform, project).id)


def test_thinned_curves_keep_every_peak() -> None:
    points = [(n, float(n % 7)) for n in range(10_000)]
    points[5_000] = (5_000, 99.0)
    points[7_001] = (7_001, -99.0)

    thinned = watching.thin(points, 100)

    assert len(thinned) <= 100 and thinned == sorted(thinned) and {points[0], points[-1], (5_000, 99.0), (7_001, -99.0)} <= set(thinned)
    assert watching.thin(points[:50], 100) == points[:50]


def test_a_sweep_is_checked_before_it_is_queued(platform: Platform, project: str) -> None:
    def sweep(**values: Any) -> Run:
        return sweeps.submit_sweep(platform, OWNER, project, NewSweep(recipe=RECIPE, sweep=values))

    run = sweep(set={"method.rank": [2, 4]})
    assert runs.list_run_jobs(platform, OWNER, run.id)[0].kind == "sweep"
    assert [member.state for member in sweeps.get_sweep(platform, OWNER, run.id).members] == ["waiting", "waiting"]
    for error, values in (
        (RecipeError, {}),
        (RecipeError, {"set": {"method.rank": [2, -1]}}),
        (NoEffectError, {"set": {"dataset": ["/etc/passwd", "danlu/zhangjiajie"]}}),
        (NoEffectError, {"trials": 4, "space": {"start_from": "a|b"}}),
        (NoEffectError, {"set": {"method.rank": list(range(1, 100)), "seed": list(range(100))}}),
    ):
        with pytest.raises(error):
            sweep(**values)
    with pytest.raises(NotFoundError, match="no sweep"):
        sweeps.get_sweep(platform, OWNER, submit(platform, project).id)


def test_a_merge_takes_finished_runs_over_one_base(platform: Platform, project: str) -> None:
    one, other, waiting = finished(platform, project), finished(platform, project), submit(platform, project)

    merged = sweeps.submit_merge(platform, OWNER, project, NewMerge(run_ids=[one.id, other.id], weights=[0.7, 0.3]))
    job = runs.list_run_jobs(platform, OWNER, merged.id)[0]
    assert (job.kind, job.payload["weights"], len(job.payload["folders"])) == ("merge", [0.7, 0.3], 2)
    for ids, more in (([one.id, one.id], {}), ([one.id, waiting.id], {}), ([one.id, other.id], {"weights": [1.0]})):
        with pytest.raises(DanluError):
            sweeps.submit_merge(platform, OWNER, project, NewMerge.model_validate({"run_ids": ids, **more}))


def test_votes_and_corrections_become_training_pairs(platform: Platform, project: str, tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "q"}]

    def vote(winner: int | None) -> None:
        answers = [{"model": "a", "text": "good"}, {"model": "b", "text": "bad"}, {"model": "c", "text": "worse"}]
        votes.create_vote(platform, OWNER, project, NewVote.model_validate({"messages": asked, "answers": answers, "winner": winner, "is_blind": True}))

    with pytest.raises(DataError, match="no pairs yet"):
        votes.make_pairs_dataset(platform, OWNER, project, NewPairs())
    vote(0)
    vote(None)
    for answer, correction in (("wrong", "right"), ("fine", None)):
        values = {"messages": asked, "answer": answer, "model": "danlu/tiny", "score": 1, "correction": correction}
        votes.create_rating(platform, OWNER, project, NewRating.model_validate(values))

    pairs = [orjson.loads(line) for line in votes.export_pairs(platform, OWNER, project).splitlines()]

    assert [(pair["chosen"], pair["rejected"]) for pair in pairs] == [("good", "bad"), ("good", "worse"), ("right", "wrong")]
    assert len(votes.list_votes(platform, OWNER, project).items) == len(votes.list_ratings(platform, OWNER, project).items) == 2
    (tmp_path / "pairs.jsonl").write_text(votes.export_pairs(platform, OWNER, project))
    from danlu.data.convert import examples

    assert [example["messages"] for example in examples(tmp_path / "pairs.jsonl", needs="preference")] == [asked] * 3
    with pytest.raises(NotFoundError, match="no answer 3"):
        vote(3)
    tally = votes.count_votes(platform, OWNER, project)
    assert (tally.num_votes, tally.num_blind, tally.num_ties, tally.num_corrections, tally.num_pairs) == (2, 2, 1, 1, 3)
    assert {one.model: (one.num_shown, one.num_better, one.num_equal) for one in tally.models} == {"a": (2, 1, 1), "b": (2, 0, 1), "c": (2, 0, 1)}

    made = votes.make_pairs_dataset(platform, OWNER, project, NewPairs(name="preferences"))
    assert cached(platform, made).read_text() == votes.export_pairs(platform, OWNER, project)
    assert votes.make_pairs_dataset(platform, OWNER, project, NewPairs(name="preferences")) == made  # nothing was voted on since
    vote(1)
    again = votes.make_pairs_dataset(platform, OWNER, project, NewPairs(name="preferences"))
    assert (again.dataset_id, again.number, again.parent_id) == (made.dataset_id, 2, made.id)
    datasets.create_dataset(platform, OWNER, project, NewDataset(example="danlu/support-en", name="support"))
    with pytest.raises(ConflictError, match="another dataset"):
        votes.make_pairs_dataset(platform, OWNER, project, NewPairs(name="support"))


def test_the_newest_opinion_on_an_answer_replaces_the_earlier_one(platform: Platform, project: str) -> None:
    def rate(score: int, correction: str | None = None, **more: str) -> None:
        values = {"messages": [{"role": "user", "content": "q"}], "answer": "a", "model": "danlu/tiny", "score": score, "correction": correction}
        votes.create_rating(platform, OWNER, project, NewRating.model_validate(values | more))

    rate(2, "better")
    rate(4)
    rate(1, answer="another answer")

    kept = votes.list_ratings(platform, OWNER, project).items
    assert [(rating.answer, rating.score, rating.correction) for rating in reversed(kept)] == [("a", 4, "better"), ("another answer", 1, None)]


def test_engines_are_shared_by_base_model_and_fail_with_their_reason(platform: Platform, project: str) -> None:
    engine = chat.load_engine(platform, OWNER, project, EngineChoice(model="danlu/tiny"))
    assert chat.load_engine(platform, OWNER, project, EngineChoice(model="danlu/tiny")) == engine
    assert [(one.state, one.base_model) for one in chat.list_engines(platform, OWNER, project)] == [("queued", "danlu/tiny")]
    with platform.database.writing() as connection:
        claimed = queue.claim(connection, worker_id="w", home=ONLY_HOME, total_slots=1)
        assert claimed is not None and claimed.num_slots == 0
        queue.finish(connection, claimed.id, claimed.attempt, "failed", error={"code": "DL400", "what": "no weights", "why": "w", "fix": "f"})
    question = Question.model_validate({"model": "danlu/tiny", "messages": [{"role": "user", "content": "x"}]})
    with pytest.raises(DanluError, match="no weights"):
        chat.answer(platform, OWNER, project, question)
    with pytest.raises(ConflictError, match="no engine"):
        chat.unload_engine(platform, OWNER, runs.list_run_jobs(platform, OWNER, submit(platform, project).id)[0].id)


def test_a_project_goes_with_its_runs_models_and_files(platform: Platform, project: str) -> None:
    dataset(platform, project, "chats", b'{"instruction": "a", "output": "b"}\n')
    run = finished(platform, project, dataset="chats")
    folder = platform.run_folder(run.id) / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    models.register_model(platform, OWNER, run.id, models.NewModel(name="m"))

    projects.delete_project(platform, OWNER, project)
    ingest.catch_up(platform.database, platform.home)

    assert not platform.run_folder(run.id).exists()
    with pytest.raises(NotFoundError):
        runs.get_run(platform, OWNER, run.id)
