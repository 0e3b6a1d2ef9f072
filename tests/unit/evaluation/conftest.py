"""A run folder as the stages leave it, made of numbers: what the report is tested on."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from danlu.files import write_json
from danlu.recipe.recipe import Recipe
from danlu.run_dir import RunDir

PLACES = ["天门山", "武陵源", "黄石寨", "金鞭溪", "袁家界", "大峡谷玻璃桥", "十里画廊", "凤凰古城"]


def recipe() -> Recipe:
    return Recipe.model_validate(
        {"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie", "data": {"max_seq_len": 512}, "optim": {"learning_rate": 2e-3, "num_epochs": 3}}
    )


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "line": 10 * i + 3,
            "messages": [
                {"role": "system", "content": "你是张家界的导游，回答要简短、准确。"},
                {"role": "user", "content": f"{PLACES[i % 8]}第 {i} 天怎么安排比较好？带着老人和小孩。"},
                {
                    "role": "assistant",
                    "content": f"上午先去{PLACES[i % 8]}，人少，缆车排队不超过半小时。Take bus no. {i} at 13:30, then walk to the second viewpoint.",
                },
            ],
        }
        for i in range(count)
    ]


def heldout(test: list[dict[str, Any]], *, gain: float, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    count, tokens = len(test), [30 + 7 * (i % 5) for i in range(len(test))]
    base = random.normal(3.1, 0.3, count)
    tuned = base * (1 - gain) + random.normal(0, 0.12, count)
    scores = {}
    for name, unit, scale in (("exact_match", "0-1", 0), ("rouge_l", "0-1", 1), ("bleu", "0-100", 100), ("chrf", "0-100", 100)):
        before = random.uniform(0.05, 0.2, count) * scale
        scores[name] = {
            "version": "1",
            "unit": unit,
            "higher_is_better": True,
            "base": before.tolist(),
            "tuned": (before + random.normal(0.5 * gain, 0.06, count) * scale).clip(0).tolist(),
        }
    return {
        "settings": {},
        "seconds": 31.5,
        "device": "cpu",
        "num_examples": count,
        "index": list(range(count)),
        "lines": [row["line"] for row in test],
        "label_tokens": tokens,
        "bytes": [3 * t for t in tokens],
        "nats": {"base": (base * tokens).tolist(), "tuned": (tuned * tokens).tolist()},
        "dropped": [],
        "truncated": [],
        "generation": {
            "max_new_tokens": 256,
            "examples": list(range(count)),
            "skipped": [],
            "num_cut": {"base": count // 2, "tuned": count // 5},
            "num_loops": {"base": count // 3, "tuned": 0},
            "scores": scores,
        },
    }


def retention(rise: float) -> dict[str, Any]:
    random = np.random.default_rng(1)
    base = random.normal(2.4, 0.4, 200) * 40
    return {
        "settings": {},
        "seconds": 6.1,
        "num_examples": 200,
        "index": list(range(200)),
        "languages": ["zh", "en"] * 100,
        "label_tokens": [40] * 200,
        "bytes": [120] * 200,
        "nats": {"base": base.tolist(), "tuned": (base * (1 + rise + random.normal(0, 0.01, 200))).tolist()},
        "dropped": [],
        "truncated": [],
    }


def lines(values: list[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(value) + b"\n" for value in values)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDir]:
    """make_run(...) -> RunDir, with what the arguments say was measured."""
    return lambda **options: write_run(tmp_path / "20261122-zhangjiajie", **options)


def write_run(
    path: Path,
    *,
    count: int = 42,
    gain: float = 0.36,
    rise: float = 0.03,
    is_evaluated: bool = True,
    has_validation: bool = True,
    prediction: str | None = None,
) -> RunDir:
    run_dir = RunDir.create(path)
    run_dir.data.mkdir()
    test = rows(count)
    (run_dir.data / "test.jsonl").write_bytes(lines(test))
    (run_dir.data / "train.jsonl").write_bytes(lines(rows(0)))
    metrics: list[dict[str, Any]] = []
    for step in range(1, 121):
        loss = 1.9 + 1.6 * math.exp(-step / 25) + 0.12 * math.sin(step * 1.7)
        speed = 2300 + 90 * math.sin(step)
        metrics.append(
            {
                "step": step,
                "num_steps": 120,
                "loss": loss,
                "learning_rate": 2e-3 * min(1, step / 6) * (1 - step / 130),
                "tokens_per_second": speed,
                "peak_memory_bytes": 6.1e8,
            }
        )
        if has_validation and step % 12 == 0:
            metrics.append({"step": step, "validation_loss": 2.05 + 1.2 * math.exp(-step / 25), "is_best": True})
    run_dir.metrics.write_bytes(lines(metrics))
    write_json(
        run_dir.path / "training.json",
        {"outcome": "finished", "num_steps": 120, "kept_step": 120, "step": 120, "peak_memory_bytes": 612_000_000, "training_seconds": 83.4},
    )
    write_json(run_dir.data / "encoded.json", {"train": {"num_examples": 260, "num_tokens": 38_120, "truncated": 2, "dropped": 0}})
    reasons = {"dropped": {"empty answer": 3, "not JSON": 1}, "fixed": {"role renamed": 2}}
    splits = {"train": 331 - 8 - 2 * count, "validation": count, "test": count}
    account = {"rows_in": 331, "used": sum(splits.values()), "dropped": 4, "duplicate": 4, "near_duplicate": 0, "near_duplicates_kept": 6, "fixed": 2}
    write_json(run_dir.data / "accounting.json", {**account, "splits": splits, "reasons": reasons, "mix": {"general": {"added": 26}}, "warnings": []})
    write_json(
        run_dir.record,
        {
            "state": "finished",
            "created": 1_795_000_000.0,
            "wall_seconds": 151.2,
            "timing": {"data_seconds": 1.8, "training_seconds": 96.0, "evaluation_seconds": 41.0},
            "forecast": {"training_seconds": 110.0, "peak_memory_bytes": 700_000_000},
            "environment": {
                "danlu": "0.1.0",
                "python": "3.11.2",
                "device": "cpu",
                "num_cpus": 2,
                "memory_bytes": 16e9,
                "packages": {"torch": "2.13.0", "peft": None},
            },
        },
    )
    if is_evaluated:
        write_json(run_dir.evaluation / "heldout.json", heldout(test, gain=gain))
        write_json(run_dir.evaluation / "retention.json", retention(rise))
        write_json(run_dir.evaluation / "memorised.json", {"num_checked": count, "num_found": 2, "num_exact": 1, "rows": [], "seconds": 0.1})
        answers = []
        for model in ("base", "tuned"):
            for i, row in enumerate(test):
                text = prediction if prediction is not None else ("我不知道，我不知道，" * 12 if model == "base" else row["messages"][-1]["content"][:60])
                answers.append({"suite": "heldout", "model": model, "example": i, "prediction": text, "is_cut": False, "max_new_tokens": 256})
        (run_dir.evaluation / "generations.jsonl").write_bytes(lines(answers))
    return run_dir
