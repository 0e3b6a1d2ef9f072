"""The platform from Python, as docs/python.md shows it: a file, a run, its proof; the worker comes and goes by itself."""

import re
from pathlib import Path
from typing import Any

import pytest

from danlu import Studio


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_script_gets_from_a_file_to_a_proof(tmp_path: Path, rows_file: Path) -> None:
    steps: list[dict[str, Any]] = []
    with Studio.open(tmp_path / "home") as studio:
        doors = studio.datasets.add(rows_file, name="doors")
        recipe = {
            "base_model": "danlu/tiny",
            "dataset": doors.ref,
            "method": {"type": "lora", "rank": 4},
            "optim": {"max_steps": 4, "global_batch_size": 8},
            "evaluation": {"suites": ["heldout"], "max_generations": 2, "max_new_tokens": 4},
        }

        run = studio.runs.submit(recipe).wait(on_step=steps.append, timeout_seconds=360)

        report = run.report()
        assert [step["step"] for step in steps if "loss" in step] == [1, 2, 3, 4]
        assert report.verdict is not None and report.verdict.label == run.record.verdict
        assert re.fullmatch(r"[a-z ]+, [+-][\d.]+ nll_per_token \[[+-][\d.]+, [+-][\d.]+\], p (=|<) [\d.]+", str(report.verdict))
        assert run.save_report(tmp_path / "report.html").read_text("utf-8").lower().startswith("<!doctype html>")
        assert {job.state for job in run.jobs()} == {"succeeded"} and "succeeded" in "".join(run.log())
        assert [found.kind for found in run.follow()].count("point") >= 4
