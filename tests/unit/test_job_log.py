"""What a job's log says of a run."""

import pytest

from danlu.worker.job_log import EVERY_SECONDS, JobLog


def test_a_log_tells_stages_validations_and_now_and_then_a_step_but_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    log = JobLog(clock=lambda: now[0])

    log("stage", {"message": "training begins", "stage": "training"})
    for step in (1, 2, 3):
        log("metrics", {"step": step, "num_steps": 4, "loss": 5.0 - step})
    now[0] = EVERY_SECONDS
    log("progress", {"what": "heldout: answers, tuned", "done": 3, "total": 39})
    log("sample", {"message": "Who? -> Me", "step": 3})
    log("metrics", {"step": 4, "num_steps": 4, "validation_loss": 1.5})
    log("warning", {"message": "few rows \x1b[31m"})

    lines = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "training begins",
        "  step 1 of 4: loss 4.0000",
        "  heldout: answers, tuned: 3 of 39",
        "  step 4: validation loss 1.5000",
        "  few rows \\x1b[31m",
    ]


def test_a_log_of_several_runs_says_of_which_and_leaves_numbers_out(capsys: pytest.CaptureFixture[str]) -> None:
    log = JobLog()

    log.of_member("001", "stage", {"message": "training begins", "stage": "training"})
    log.of_member("001", "metrics", {"step": 4, "num_steps": 4, "validation_loss": 1.5})
    log.of_member("002", "sample", {"message": "Who? -> Me", "step": 3})
    log.of_member("", "rung", {"message": "rung 1: 1 of 2 members go on"})

    assert [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()] == ["001: training begins", "  rung 1: 1 of 2 members go on"]
