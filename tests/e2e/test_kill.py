"""`kill -9` at random instants: the run that went on ends with bitwise the same adapter as one never killed."""

import multiprocessing
import random
import time
from pathlib import Path

import orjson
import pytest

from danlu.data import tokenise
from danlu.files import read_json, read_jsonl
from danlu.recipe.load import load_recipe
from danlu.run_dir import RunDir
from danlu.training.checkpoint import problem

NUM_KILLS, ENOUGH_KILLS = 20, 12
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["danlu.training.run", "danlu.evaluation.run", "peft"])


def write_rows(path: Path, num_rows: int) -> Path:
    draw = random.Random(5)
    words = [
        "peak",
        "cave",
        "river",
        "bridge",
        "ticket",
        "cable",
        "car",
        "monkey",
        "rain",
        "cloud",
        "lamp",
        "desk",
        "order",
        "refund",
        "parcel",
        "window",
        "garden",
        "train",
    ]
    rows = [
        {"instruction": f"{n}: {' '.join(draw.choices(words, k=6))}?", "output": " ".join(draw.choices(words, k=draw.randint(3, 20)))} for n in range(num_rows)
    ]
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    return path


def carry_out(recipe_values: dict[str, object], run_dir: Path) -> None:
    import torch

    from danlu.services.runs import run

    torch.set_num_threads(1)
    run(load_recipe(values=recipe_values), run_dir=run_dir)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_killed_at_random_instants_ends_bitwise_equal(tmp_path: Path, small_model: Path) -> None:
    values = {
        "base_model": str(small_model),
        "dataset": str(write_rows(tmp_path / "rows.jsonl", 120)),
        "method": {"type": "lora", "rank": 4, "dropout": 0.1},
        "optim": {"max_steps": 160, "global_batch_size": 4, "micro_batch_tokens": 128, "learning_rate": 0.003},
        "training": {"checkpoint_every_steps": 4, "validate_every_steps": 10, "early_stopping_patience": None},
        "evaluation": {"suites": ["heldout"], "metrics": []},
    }
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    carry_out(values, whole)
    draw, num_kills, places = random.Random(11), 0, set()

    while num_kills < NUM_KILLS:
        process = CONTEXT.Process(target=carry_out, args=(values, killed))
        process.start()
        # Some attempts are killed by the clock (set-up, data, the first step), the others after some steps more.
        target = last_step(killed) + draw.randint(1, 7)
        deadline = time.monotonic() + (draw.uniform(0.2, 1.5) if num_kills % 4 == 0 else 60)
        while process.is_alive() and time.monotonic() < deadline and last_step(killed) < target:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.03))
        if not process.is_alive():  # on a busy machine this one slept while the run went on
            break
        process.kill()
        process.join()
        num_kills += 1
        places.add(last_step(killed))
    carry_out(values, killed)

    assert num_kills >= ENOUGH_KILLS and len(places) > 8, "the run ended before it was killed often enough; give it more steps"
    assert (killed / "adapter/adapter_model.safetensors").read_bytes() == (whole / "adapter/adapter_model.safetensors").read_bytes()
    assert losses(killed) == losses(whole)
    assert not list(killed.rglob("*.tmp"))
    assert all(problem(folder) is None for folder in RunDir(killed).checkpoints.iterdir())
    verdicts = [read_json(folder / "report.json")["verdict"] for folder in (whole, killed)]
    assert verdicts[0] == verdicts[1]


def carry_out_later(recipe_values: dict[str, object], run_dir: Path) -> None:
    """As `carry_out`, with a hundred rows being many: they are tokenised while training goes on."""
    tokenise.MAX_AT_ONCE, tokenise.SAMPLE = 50, 20
    carry_out(recipe_values, run_dir)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_a_run_killed_while_it_is_being_tokenised_ends_bitwise_equal_and_leaves_no_process(
    tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "base_model": str(small_model),
        "dataset": str(write_rows(tmp_path / "rows.jsonl", 120)),
        "method": {"type": "lora", "rank": 4, "dropout": 0.1},
        "optim": {"max_steps": 60, "global_batch_size": 4, "micro_batch_tokens": 128, "learning_rate": 0.003},
        "training": {"checkpoint_every_steps": 4, "validate_every_steps": 10, "early_stopping_patience": None},
        "evaluation": {"suites": [], "metrics": []},
    }
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    carry_out(values, whole)
    draw = random.Random(12)

    for number in range(6):
        process = CONTEXT.Process(target=carry_out_later, args=(values, killed))
        process.start()
        # Killed before, in, and after the work of the second process, which needs some seconds for its start.
        target, deadline = last_step(killed) + draw.randint(1, 9), time.monotonic() + (draw.uniform(0.3, 3) if number % 2 else 60)
        while process.is_alive() and time.monotonic() < deadline and last_step(killed) < target:
            time.sleep(0.002)
        assert process.is_alive(), "the run ended before it was killed often enough; give it more steps"
        process.kill()
        process.join()
    for name in ("MAX_AT_ONCE", "SAMPLE"):
        monkeypatch.setattr(tokenise, name, getattr(tokenise, name))  # put back after the test
    carry_out_later(values, killed)

    assert (killed / "tokenising.log").exists(), "nothing was left for later"
    assert (killed / "adapter/adapter_model.safetensors").read_bytes() == (whole / "adapter/adapter_model.safetensors").read_bytes()
    assert losses(killed) == losses(whole)
    assert read_json(killed / "data/encoded.json") == read_json(whole / "data/encoded.json")
    deadline = time.monotonic() + 30
    while at_work_on(killed) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert at_work_on(killed) == []


def at_work_on(folder: Path) -> list[str]:
    """Processes with the folder on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path.parent.name] * (str(folder).encode() in path.read_bytes())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def last_step(folder: Path) -> int:
    metrics = folder / "metrics.jsonl"
    if not metrics.exists():
        return 0
    lines = [line for line in metrics.read_bytes().splitlines() if line.endswith(b"}")]
    return int(orjson.loads(lines[-1])["step"]) if lines else 0


def losses(folder: Path) -> list[tuple[int, float | None, float | None]]:
    return [(line["step"], line.get("loss"), line.get("validation_loss")) for line in read_jsonl(folder / "metrics.jsonl")]
