"""A short form of the fault gate (`make chaos`): real trainings in processes of their own, real kills, a few faults at saves."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos.gate import Gate
from chaos.points import training_points, undisturbed_and_forked, worker_points
from danlu.store.jobs import Job


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory, small_model: Path, rows_file: Path) -> Iterator[Path]:
    """Folder with the process from which those of jobs are forked (`z`) and a run that nobody disturbed (`whole`)."""
    folder = tmp_path_factory.mktemp("gate")
    gate = Gate(folder, small_model, rows_file, seed=0)
    gate.start_zygote()
    try:
        (folder / "whole").symlink_to(undisturbed_and_forked(gate))
        yield folder
    finally:
        gate.stop()


@pytest.fixture
def gate(tmp_path: Path, origin: Path, small_model: Path, rows_file: Path) -> Gate:
    for name in ("z", "whole"):
        (tmp_path / name).symlink_to(origin / name)
    return Gate(tmp_path, small_model, rows_file, seed=3)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_six_random_kills_lose_nothing(gate: Gate) -> None:
    gate.plan(3, pause=0.3)

    figures = gate.run(["server", "worker", "worker and jobs", "server", "both", "both and jobs"], between=(0.3, 3.0), timeout=400)

    assert figures.wrong == []
    assert figures.ends.total() >= 3 and figures.ends["succeeded"] >= 2 and figures.kills.total() == 6
    assert max(figures.steps_lost, default=0) <= 4
    print(figures.table())


class Chains(Gate):
    """The same with jobs of a fraction of a second: chains of hashes, each link of which is the wrong one if a link was lost or made from another's."""

    num_links = 8

    def work(self, name: str, priority: str) -> dict[str, Any]:
        payload = {"type": "test_steps", "path": str(self.home / f"{name}.json"), "num_steps": self.num_links, "step_seconds": 0.02, "save_every": 2}
        return {"chain": payload, "priority": priority}

    def harm(self, job: Job, run: Path) -> list[str]:
        chain = "begin"
        for step in range(self.num_links):
            chain = hashlib.sha256(f"{chain} {step}".encode()).hexdigest()
        return [] if job.state != "succeeded" or job.result == {"chain": chain} else [f"the result of {job.id} is {job.result}"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_queue_of_fifty_jobs_in_three_classes_with_cancels_ends_right_after_random_kills(
    tmp_path: Path, origin: Path, small_model: Path, rows_file: Path
) -> None:
    (tmp_path / "z").symlink_to(origin / "z")
    gate = Chains(tmp_path, small_model, rows_file, seed=5)
    gate.plan(50, pause=0.05)

    figures = gate.run(["server", "worker", "both", "server", "worker", "both"], between=(0.2, 1.5), timeout=400)

    assert figures.wrong == []
    assert figures.ends.total() == 50 and set(figures.ends) <= {"succeeded", "cancelled"} and figures.ends["succeeded"] >= 35
    assert figures.kills.total() == 6 and figures.ends["cancelled"] >= 1
    print(figures.table())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_faults_at_the_saves_of_a_training_lose_nothing(gate: Gate) -> None:
    assert training_points(gate, limit=4, seed=7) == (4, [])
    gate.stop()


@pytest.mark.slow
def test_faults_at_the_commits_of_the_worker_lose_nothing(tmp_path: Path) -> None:
    assert worker_points(tmp_path, limit=3, seed=2) == (3, [])
