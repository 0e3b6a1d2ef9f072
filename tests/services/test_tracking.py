"""Trackers: they hold what metrics.jsonl holds, once, also after a resume; and no failure of theirs reaches the run."""

import os
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from danlu.errors import MissingExtraError, UnknownNameError
from danlu.files import read_json, read_jsonl
from danlu.recipe.load import load_recipe
from danlu.reporter import Reporter, truncate_metrics
from danlu.run_dir import RunDir
from danlu.services.runs import run
from danlu.tracking import follow as follow_module
from danlu.tracking.base import TRACKERS, TrackerConfig
from danlu.tracking.follow import Follower, follow
from models import recipe_values

SECRET = "0123456789abcdef-do-not-tell"


def needs(package: str) -> Any:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed (pip install 'danlu[{package}]')")


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "20300101-000000-doors")


def report(run_dir: RunDir, names: list[str], steps: range, heard: list[tuple[str, dict[str, Any]]] | None = None) -> None:
    """Tell the steps of a run as the loop does, with a validation at every fifth."""
    reporter = Reporter(run_dir, lambda kind, fields: heard.append((kind, fields)) if heard is not None else None)
    with follow(names, run_dir, reporter):
        for step in steps:
            reporter.metrics(step=step, num_steps=20, loss=3 / step, learning_rate=1e-3, grad_norm=1.0 + step)
            if step % 5 == 0:
                reporter.metrics(step=step, validation_loss=4 / step, is_best=True)


def killed_and_resumed(run_dir: RunDir, name: str) -> list[tuple[str, dict[str, Any]]]:
    """Steps 1-13, back to the checkpoint at 10, and on to 20 with the tracker that is on record."""
    heard: list[tuple[str, dict[str, Any]]] = []
    report(run_dir, [name], range(1, 14), heard)
    truncate_metrics(run_dir.metrics, after_step=10)
    report(run_dir, [], range(11, 21), heard)
    return heard


def points(run_dir: RunDir) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every number of metrics.jsonl, by name."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in read_jsonl(run_dir.metrics):
        for key, value in row.items():
            if key not in ("step", "time", "is_best"):
                found.setdefault(key, []).append((row["step"], value))
    return found


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard's own reader finds."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def same(found: dict[str, list[tuple[int, float]]], expected: dict[str, list[tuple[int, float]]], *, rel: float) -> bool:
    return found.keys() == expected.keys() and all(
        [step for step, _ in found[key]] == [step for step, _ in expected[key]]
        and [v for _, v in found[key]] == pytest.approx([v for _, v in expected[key]], rel=rel)
        for key in expected
    )


@needs("tensorboard")
def test_tensorboard_reads_what_metrics_jsonl_holds(tmp_path: Path, small_model: Path, rows_file: Path) -> None:
    recipe = load_recipe(values=recipe_values(small_model, rows_file, evaluation={"suites": []}))
    done = run(recipe, run_dir=tmp_path / "run", track=["tensorboard"])

    assert same(scalars(done.run_dir.path / "tensorboard"), points(done.run_dir), rel=1e-6)  # float32 in their files
    [event] = [event for event in read_jsonl(done.run_dir.events) if event["kind"] == "tracking"]
    assert event["message"].startswith("tensorboard follows this run: ")
    assert recipe.fingerprint == load_recipe(values=recipe.to_dict()).fingerprint and "tensorboard" not in str(recipe.to_dict())


@needs("tensorboard")
def test_tensorboard_has_every_step_once_after_a_resume(run_dir: RunDir) -> None:
    killed_and_resumed(run_dir, "tensorboard")

    found = scalars(run_dir.path / "tensorboard")
    assert [step for step, _ in found["loss"]] == list(range(1, 21))
    assert same(found, points(run_dir), rel=1e-6)


@needs("mlflow")
def test_mlflow_has_every_step_once_after_a_resume(run_dir: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    heard = killed_and_resumed(run_dir, "mlflow")

    assert "tracker_failed" not in [kind for kind, _ in heard]
    client, identity = MlflowClient(), read_json(run_dir.path / "tracking.json")["mlflow"]["id"]
    found = {key: [(m.step, m.value) for m in client.get_metric_history(identity, key)] for key in client.get_run(identity).data.metrics}
    assert same(found, points(run_dir), rel=1e-12)
    assert len(client.search_runs([client.get_run(identity).info.experiment_id])) == 1
    assert SECRET not in "".join(path.read_text("utf-8") for path in run_dir.path.glob("*.json*"))


@needs("wandb")
@pytest.mark.slow
def test_wandb_offline_has_every_step_once_after_a_resume(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", SECRET * 2)
    heard = killed_and_resumed(run_dir, "wandb")

    assert "tracker_failed" not in [kind for kind, _ in heard]
    folders = sorted((run_dir.path / "wandb").glob("offline-run-*"))
    identity = read_json(run_dir.path / "tracking.json")["wandb"]["id"]
    assert len(folders) == 2 and all(folder.name.endswith(f"-{identity}") for folder in folders)
    steps = [step for folder in folders for step in wandb_steps(folder)]
    assert sorted(steps) == list(range(1, 14)) + list(range(14, 21))
    assert SECRET not in "".join(path.read_text("utf-8") for path in run_dir.path.glob("*.json*"))


def wandb_steps(folder: Path) -> list[int]:
    """The steps in an offline run's own log: records in blocks of 32 KiB, each behind a checksum, a length and a kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = next(folder.glob("*.wandb")).read_bytes()
    steps, position, data = set(), 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        data = (b"" if kind in (1, 2) else data) + content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(data)
            if record.HasField("history"):
                steps.add(record.history.step.num)
    return sorted(steps)


@needs("swanlab")
@pytest.mark.slow
def test_swanlab_follows_offline(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    heard = killed_and_resumed(run_dir, "swanlab")

    assert "tracker_failed" not in [kind for kind, _ in heard]
    assert list((run_dir.path / "swanlab").rglob("*.swanlab"))
    assert read_json(run_dir.path / "tracking.json")["swanlab"]["last_steps"]["loss"] == 20


class Broken(TrackerConfig):
    """A tracker that fails at a step, or hangs there."""

    type: Literal["broken"] = "broken"
    package: ClassVar[str] = "json"
    secrets: ClassVar[tuple[str, ...]] = ("BROKEN_",)
    at: int = 3
    hang_seconds: float = 0.0
    where: ClassVar[str] = "nowhere"
    state: ClassVar[dict[str, Any]] = {}
    is_answered: ClassVar[threading.Event] = threading.Event()

    def open(self, run_dir: RunDir, config: dict[str, Any], state: dict[str, Any]) -> Any:
        return self

    def last_step(self, key: str) -> int:
        return -1

    def log(self, step: int, seconds: float, values: dict[str, float]) -> None:
        if step == self.at:
            self.is_answered.wait(self.hang_seconds)
            raise ConnectionError(f"cannot reach the server\nwith key {os.environ.get('BROKEN_KEY')}")

    def close(self) -> None:
        pass


def told(run_dir: RunDir, tracker: TrackerConfig) -> Callable[[], list[dict[str, Any]]]:
    """A reporter of ten steps with `tracker` beside it; its events are returned."""
    heard: list[tuple[str, dict[str, Any]]] = []
    reporter = Reporter(run_dir, lambda kind, fields: heard.append((kind, fields)))
    follower = Follower(tracker, run_dir, reporter, {}, lambda: None)
    reporter.listen(follower)
    for step in range(1, 11):
        reporter.metrics(step=step, loss=1.0)
    follower.close()
    return [fields for kind, fields in heard if kind == "tracker_failed"]  # type: ignore[return-value]


def test_a_tracker_that_fails_is_left_behind_without_its_secrets(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKEN_KEY", SECRET)
    [event] = told(run_dir, Broken())  # type: ignore[misc]

    assert event["message"] == "broken no longer follows this run: cannot reach the server with key ***"
    assert [row["step"] for row in read_jsonl(run_dir.metrics)] == list(range(1, 11))
    assert SECRET not in run_dir.events.read_text("utf-8")


def test_a_tracker_that_hangs_keeps_nobody_waiting(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_module, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(Broken, "is_answered", threading.Event())
    start = time.monotonic()
    [event] = told(run_dir, Broken(hang_seconds=60.0))  # type: ignore[misc]
    seconds = time.monotonic() - start
    Broken.is_answered.set()  # so that its thread ends

    assert event["message"] == "broken no longer follows this run: no answer within 0.2 seconds"
    assert seconds < 30


@needs("mlflow")
def test_a_server_that_is_not_there_ends_the_tracking_not_the_run(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    heard: list[tuple[str, dict[str, Any]]] = []
    report(run_dir, ["mlflow"], range(1, 4), heard)

    [event] = [fields for kind, fields in heard if kind == "tracker_failed"]
    assert "MLFLOW_TRACKING_URI is not set" in event["message"]
    assert len(list(read_jsonl(run_dir.metrics))) == 3


def test_an_unknown_tracker_is_refused_before_a_run_is_begun(tmp_path: Path, small_model: Path, rows_file: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown tracker 'tensorbord'") as caught:
        run(load_recipe(values=recipe_values(small_model, rows_file)), run_dir=tmp_path / "run", track=["tensorbord"])
    assert caught.value.fix == "use 'tensorboard'" and not (tmp_path / "run").exists()


def test_a_client_that_is_not_installed_is_named(tmp_path: Path, small_model: Path, rows_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRACKERS["wandb"], "package", "no_such_client")
    monkeypatch.setenv("DANLU_TRACK", "wandb, tensorboard")
    with pytest.raises(MissingExtraError, match="tracker wandb needs a package") as caught:
        run(load_recipe(values=recipe_values(small_model, rows_file)), run_dir=tmp_path / "run")
    assert caught.value.fix == "pip install 'danlu[wandb]'" and not (tmp_path / "run").exists()


def test_trackers_are_off_by_default(run_dir: RunDir) -> None:
    report(run_dir, [], range(1, 4))
    assert sorted(path.name for path in run_dir.path.iterdir()) == ["metrics.jsonl"]


def test_every_tracker_is_one_file_that_imports_no_client() -> None:
    assert list(TRACKERS) == ["mlflow", "swanlab", "tensorboard", "wandb"]
    assert all(TRACKERS[name].__doc__ and TRACKERS[name].package for name in TRACKERS)


def test_the_users_own_words_are_not_sent(tmp_path: Path) -> None:
    from danlu.files import write_json

    one = RunDir.create(tmp_path / "run")
    write_json(
        one.recipe,
        {"optim": {"learning_rate": 0.1}, "data": {"system": "You are secret.", "mix": {}}, "training": {"sample_prompts": ["my name"], "dtype": "float32"}},
    )
    assert follow_module._config(one) == {"optim.learning_rate": 0.1, "data.mix": "{}", "training.dtype": "float32"}
