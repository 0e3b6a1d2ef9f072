"""A run from its submission to its proof, carried out by a real supervisor with a real training process."""

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from danlu.errors import ConflictError, NotFoundError
from danlu.executors.base import Attempt
from danlu.executors.local import LocalExecutor
from danlu.executors.processes import start_time
from danlu.files import read_json
from danlu.services.platform import chat, downloads, exports, jobs, models, projects, proofs, recipes, runs, watching
from danlu.services.platform.access import Actor
from danlu.services.platform.chat import Question
from danlu.services.platform.exports import NewExport
from danlu.services.platform.models import NewModel
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.recipes import Preview
from danlu.services.platform.runs import Duplicate, NewRun, Stop
from danlu.services.platform.votes import Turn
from danlu.store.runs import Run
from danlu.worker import ingest
from danlu.worker.supervisor import Supervisor
from models import recipe_values

OWNER = Actor.local()


class Studio:
    """A home with a project and a supervisor that is driven by hand."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.project = projects.create_project(platform, OWNER, NewProject(name="p")).id
        self.supervisor = Supervisor(platform.database, platform.home, LocalExecutor(platform.home))

    def until(self, is_done: Callable[[], Any], seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while not is_done():
            assert time.monotonic() < end, [(job.kind, job.state, job.error) for job in jobs.list_jobs(self.platform, OWNER, self.project).items]
            self.supervisor.tick()
            ingest.catch_up(self.platform.database, self.platform.home)
            time.sleep(0.05)

    def is_gone(self, attempt: Attempt, pid: int) -> bool:
        has_ended = start_time(pid) is None
        self.supervisor.executor.poll(attempt)  # takes its zombie away
        return has_ended

    def finish(self, run: Run) -> Run:
        self.until(lambda: runs.get_run(self.platform, OWNER, run.id).is_over)
        ingest.catch_up(self.platform.database, self.platform.home)
        return runs.get_run(self.platform, OWNER, run.id)


@pytest.fixture
def studio(platform: Platform, small_model: Path, rows_file: Path) -> Iterator[Studio]:
    for folder, source in (("models", small_model), ("data", rows_file)):
        (platform.home / folder).mkdir()
        (platform.home / folder / source.name).symlink_to(source)
    studio = Studio(platform)
    yield studio
    for job in chat.list_engines(platform, OWNER, studio.project):
        chat.unload_engine(platform, OWNER, job.job_id)
    studio.until(lambda: not jobs.list_queue(platform, OWNER))
    for path in platform.home.glob("jobs/*/attempt-*/pid.json"):  # so that no process is left behind
        studio.until(partial(studio.is_gone, Attempt(path.parts[-3], 1, path.parent), read_json(path)["pid"]))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_goes_from_its_recipe_to_proof_export_model_and_chat(studio: Studio, small_model: Path, rows_file: Path) -> None:
    platform = studio.platform
    values = recipe_values(small_model, rows_file, training={"sample_time_share": 1000}) | {"base_model": "local/small", "dataset": "danlu/zhangjiajie"}

    preview = recipes.preview_run(platform, OWNER, studio.project, Preview(recipe=values))
    assert preview.is_ready and preview.recipe is not None and preview.forecast is not None
    assert (preview.recipe["base_model"], preview.recipe["dataset"]) == ("local/small", "danlu/zhangjiajie")
    assert {reason["path"] for reason in preview.reasons} >= {"data.max_seq_len", "training.dtype"}

    run = studio.finish(runs.submit_run(platform, OWNER, studio.project, NewRun(recipe=values, name="first")))
    assert (run.state, run.verdict, run.name) == ("succeeded", "improved", "first")
    assert run.resolved is not None and run.fingerprint == proofs.get_proof(platform, OWNER, run.id).fingerprint
    look_at_what_was_measured(platform, run)

    job = exports.submit_export(platform, OWNER, run.id, NewExport(type="adapter"))
    model = models.register_model(platform, OWNER, run.id, NewModel(name="guide"))
    assert (model.number, model.kind, model.verdict) == (1, "adapter", "improved")
    assert models.register_model(platform, OWNER, run.id, NewModel(name="guide")) == model
    talk(studio, run)
    studio.until(lambda: jobs.get_job(platform, OWNER, job.id).is_over and exports.list_exports(platform, OWNER, studio.project).items)
    look_at_the_export(platform, run, exports.list_exports(platform, OWNER, studio.project, run.id).items[0].id)
    lineage = models.get_lineage(platform, OWNER, model.id)
    assert (lineage.run.id, len(lineage.exports), lineage.recipe["method"]["rank"]) == (run.id, 1, 4)

    again = runs.duplicate_run(platform, OWNER, run.id, Duplicate(settings={"optim.max_steps": 4, "method.rank": 2}))
    studio.until(lambda: runs.get_run(platform, OWNER, again.id).state == "running")
    runs.stop_run(platform, OWNER, again.id, Stop(outcome="discard"))
    studio.until(
        lambda: again.id not in [one.id for one in runs.list_runs(platform, OWNER, studio.project).items] and not platform.run_folder(again.id).exists()
    )
    with pytest.raises(ConflictError, match="still used"):
        runs.delete_run(platform, OWNER, run.id)


def look_at_what_was_measured(platform: Platform, run: Run) -> None:
    curves = watching.get_curves(platform, OWNER, run.id)
    assert {(curve.name, curve.kind, len(curve.steps)) for curve in curves.curves} == {("loss", "train", 8), ("validation_loss", "validation", 8)}
    assert watching.get_curves(platform, OWNER, run.id, after=6).curves[0].steps == [7, 8]
    assert [point.step for point in watching.list_points(platform, OWNER, run.id, kind="train", after=5)] == [6, 7, 8]
    kinds = [event.kind for event in watching.list_events(platform, OWNER, run.id)]
    assert kinds.count("stage") == 4 and watching.list_events(platform, OWNER, run.id, after=len(kinds) - 1) == []
    assert watching.list_samples(platform, OWNER, run.id)[0].fields["items"][0]["prompt"]
    assert all(diagnosis["en"] for diagnosis in watching.list_diagnoses(platform, OWNER, run.id))
    told = {measured.name: measured for measured in watching.get_forecast(platform, OWNER, run.id).comparison}
    assert told["num_steps"].forecast == told["num_steps"].actual == 8 and told["peak_memory_bytes"].actual

    proof = proofs.get_proof(platform, OWNER, run.id)
    assert proof.verdict is not None and proof.verdict["label"] == "improved" and proof.retention is not None
    worst = proofs.list_cases(platform, OWNER, run.id, order="worst", limit=2)
    assert worst.total == 3 and worst.items[0]["nll_per_token"]["delta"] >= worst.items[1]["nll_per_token"]["delta"]
    assert proofs.list_cases(platform, OWNER, run.id, offset=2).items[0]["answers"]["tuned"] is not None
    assert proofs.get_report(platform, OWNER, run.id)["run_id"] == run.id and b"<html" in b"".join(
        downloads.download_report(platform, OWNER, run.id).read(0, 10**6)
    )


def look_at_the_export(platform: Platform, run: Run, export_id: str) -> None:
    content = exports.get_export(platform, OWNER, export_id)
    assert content.export.verification["passed"] and content.export.run_id == run.id
    [weights] = [file for file in content.files if file.name == "adapter_model.safetensors"]
    download = downloads.download_export_file(platform, OWNER, export_id, weights.name)
    assert hashlib.sha256(b"".join(download.read(0, download.size_bytes))).hexdigest() == weights.digest == download.tag
    assert exports.read_file(platform, OWNER, export_id, weights.name)[0] == weights
    with pytest.raises(NotFoundError, match="no such file"):
        downloads.download_export_file(platform, OWNER, export_id, "../../run.json")


def talk(studio: Studio, run: Run) -> None:
    """Base and tuned model answer from one engine; several ask at once; an answer can be stopped."""
    asked = [Turn(role="user", content="Where is Zhangjiajie?")]

    def question(model: str, **values: Any) -> Question:
        return Question(model=model, messages=asked, temperature=0, max_new_tokens=values.pop("max_new_tokens", 6), **values)

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(chat.answer, studio.platform, OWNER, studio.project, question(model)) for model in ("local/small", run.id, "guide@1", run.id)]
        studio.until(lambda: all(one.done() for one in waiting))
    base, *tuned = [one.result() for one in waiting]
    assert len({one.text for one in tuned}) == 1 and base.num_tokens <= 6 and base.num_prompt_tokens > 0
    [engine] = chat.list_engines(studio.platform, OWNER, studio.project)
    assert (engine.state, engine.base_model) == ("ready", "local/small")

    pieces = chat.stream_answer(studio.platform, OWNER, studio.project, question(run.id, max_new_tokens=400))
    assert next(pieces).kind == "text"
    pieces.close()  # type: ignore[attr-defined]  # it is a generator
    whole = chat.answer(studio.platform, OWNER, studio.project, question(run.id))
    assert whole.text == tuned[0].text
