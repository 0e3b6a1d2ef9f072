"""The fault gate (docs/reliability.md): `make chaos`. Prints what was measured; the exit code is 1 when a promise was broken.

python scripts/chaos.py [--only sqlite,postgresql,training-points,worker-points] [--jobs N] [--kills N] [--minutes N] [--points N] [--seed N]
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

import orjson  # noqa: E402 - needs the path

from chaos.gate import Gate, undisturbed  # noqa: E402
from chaos.points import training_points, worker_points  # noqa: E402
from chaos.postgres import running_server  # noqa: E402
from models import write_model  # noqa: E402

PARTS = ("sqlite", "postgresql", "training-points", "worker-points")
KILLS = {"server": 4, "worker": 2, "worker and jobs": 2, "both": 1, "both and jobs": 1}
"""Of ten kills."""


def main() -> int:
    """Run the parts; print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")
    parser.add_argument("--jobs", type=int, help="trainings in the queue; three for each kill by default, so that few kills find nothing running")
    parser.add_argument("--kills", type=int, default=100, help="kills on SQLite; on PostgreSQL four tenths of it")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to kill on SQLite at most, and on PostgreSQL")
    parser.add_argument("--points", type=int, help="faults at saves, drawn at random; all of them by default")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    wrong: list[str] = []
    with a_folder() as folder:
        model, rows = write_model(folder / "model"), write_rows(folder / "rows.jsonl")
        undisturbed(folder, model, rows)
        for part in given.only.split(","):
            began = time.time()
            place = folder / part
            place.mkdir()
            (place / "whole").symlink_to(folder / "whole")
            found = PART[part](place, model, rows, given)
            print(f"  {time.time() - began:.0f} s\n", flush=True)
            wrong += found
    print("\n".join(wrong) or "every promise was kept")
    return int(bool(wrong))


def fire(place: Path, model: Path, rows: Path, given: argparse.Namespace, *, share: float = 1.0, url: str | None = None) -> list[str]:
    """Random kills on a queue of trainings."""
    gate = Gate(place, model, rows, seed=given.seed, database_url=url)
    num_kills, num_jobs = max(1, round(given.kills * share)), max(1, round((given.jobs or 3 * given.kills) * share))
    gate.plan(num_jobs, pause=0.5)
    kills = [name for name, number in KILLS.items() for _ in range(-(-num_kills * number // 10))][:num_kills]
    gate.random.shuffle(kills)
    figures = gate.run(kills, between=(0.2, 4.0), timeout=3600, kill_seconds=60 * given.minutes)
    print(f"{'PostgreSQL' if url else 'SQLite'}: random kills", *(f"  {name}: {value}" for name, value in figures.table()), sep="\n")
    return figures.wrong


def on_postgresql(place: Path, model: Path, rows: Path, given: argparse.Namespace) -> list[str]:
    """The same on a server of its own."""
    with running_server() as url:
        return fire(place, model, rows, given, share=0.4, url=url)


def at_saves_of_a_training(place: Path, model: Path, rows: Path, given: argparse.Namespace) -> list[str]:
    """Every place at which a training saves."""
    gate = Gate(place, model, rows, seed=given.seed)
    gate.start_zygote()
    try:
        number, wrong = training_points(gate, limit=given.points, seed=given.seed)
    finally:
        gate.stop()
    print(f"saves of a training: {number} faults, {len(wrong)} broken promises")
    return wrong


def at_commits_of_the_worker(place: Path, model: Path, rows: Path, given: argparse.Namespace) -> list[str]:
    """Every place at which the worker saves or commits."""
    number, wrong = worker_points(place, limit=given.points, seed=given.seed)
    print(f"saves and commits of the worker: {number} faults, {len(wrong)} broken promises")
    return wrong


PART = {"sqlite": fire, "postgresql": on_postgresql, "training-points": at_saves_of_a_training, "worker-points": at_commits_of_the_worker}


def write_rows(path: Path) -> Path:
    """60 rows."""
    rows = [{"instruction": f"Which colour has door {n}?", "output": f"Door {n} is {('red', 'green', 'blue')[n % 3]}."} for n in range(60)]
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    return path


@contextmanager
def a_folder() -> Iterator[Path]:
    """A temporary folder; it is kept when something went wrong."""
    folder = Path(tempfile.mkdtemp(prefix="danlu-chaos-"))
    print(f"in {folder} ({subprocess.run(['uname', '-sr'], capture_output=True, text=True).stdout.strip()})\n", flush=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
