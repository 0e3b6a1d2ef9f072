"""A short form of the fault gate (`make chaos`): real trainings in processes of their own, real kills, a few faults at saves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.gate import Gate
from chaos.points import training_points, undisturbed_and_forked, worker_points


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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_faults_at_the_saves_of_a_training_lose_nothing(gate: Gate) -> None:
    assert training_points(gate, limit=4, seed=7) == (4, [])
    gate.stop()


@pytest.mark.slow
def test_faults_at_the_commits_of_the_worker_lose_nothing(tmp_path: Path) -> None:
    assert worker_points(tmp_path, limit=3, seed=2) == (3, [])
