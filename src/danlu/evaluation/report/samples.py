"""What the model wrote while it was trained: the `sample` events, one prompt at a time over the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from danlu.evaluation.report.cases import cut
from danlu.files import read_jsonl

if TYPE_CHECKING:
    from danlu.run_dir import RunDir

MAX_ROUNDS = 6


def read_samples(run_dir: RunDir) -> list[dict[str, Any]]:
    """For each prompt `{prompt, reference, answers: [{step, text, is_cut}]}`; of many rounds the first, the last and some between."""
    rounds = {event["step"]: event["items"] for event in read_jsonl(run_dir.events) if event["kind"] == "sample"}
    steps = sorted(rounds)
    if len(steps) > MAX_ROUNDS:
        steps = [steps[round(i * (len(steps) - 1) / (MAX_ROUNDS - 1))] for i in range(MAX_ROUNDS)]
    if not steps:
        return []
    answers = [[{"step": s, "text": cut(rounds[s][i]["text"]), "is_cut": rounds[s][i]["is_cut"]} for s in steps] for i in range(len(rounds[steps[0]]))]
    return [
        {"prompt": cut(item["prompt"]), "reference": item["reference"] and cut(item["reference"]), "answers": answers[i]}
        for i, item in enumerate(rounds[steps[0]])
    ]
