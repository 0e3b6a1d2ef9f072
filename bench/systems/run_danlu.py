"""Danlu's own training stage. Variant: `<fast|reference>-<exact|int8>`."""

import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    task = json.loads(sys.argv[1])
    path, compute = task["variant"].split("-")
    is_pairs = task["objective"] == "dpo"
    from bench.material import encode
    from danlu.data.pack import TokenFile
    from danlu.recipe.recipe import Recipe
    from danlu.reporter import Reporter
    from danlu.run_dir import RunDir
    from danlu.training.benchmark import peak_memory_bytes
    from danlu.training.run import run

    recipe = Recipe.model_validate(
        {
            "base_model": task["model"],
            "dataset": task["data"],
            "objective": task["objective"],
            "method": {"type": "lora", "rank": task["rank"], "alpha": task["alpha"]},
            "optim": {
                "learning_rate": task["learning_rate"],
                "global_batch_size": task["global_batch_size"],
                "micro_batch_tokens": task["micro_batch_tokens"],
                "max_steps": task["steps"],
                "scheduler": "constant",
                "warmup_ratio": 0.0,
            },
            "training": {"path": path, "compute": compute, "dtype": "float32", "keep_best": False, "checkpoint_every_seconds": 1e9},
        }
    )
    run_dir = RunDir.create(Path(task["work"]))
    run_dir.data.mkdir(exist_ok=True)
    TokenFile.write(run_dir.data / "train.tokens", encode(Path(task["data"]), Path(task["model"]), is_pairs=is_pairs))
    TokenFile.write(run_dir.data / "validation.tokens", [])
    lines: list[dict[str, Any]] = []

    def listen(kind: str, fields: dict[str, Any]) -> None:
        if kind == "metrics" and "loss" in fields:
            lines.append({**fields, "cpu": time.process_time()})

    run(recipe, run_dir, Reporter(run_dir, listen), model_dir=Path(task["model"]))
    clocks = [line["cpu"] for line in lines]
    counts = [line["num_tokens"] for line in lines]
    tokens = [now - before for before, now in zip([0, *counts], counts, strict=False)]
    print(
        json.dumps(
            {
                "losses": [line["loss"] for line in lines],
                "tokens": tokens,
                "seconds": [t / line["tokens_per_second"] for t, line in zip(tokens, lines, strict=True)],
                "cpu_seconds": [now - before for before, now in zip([0.0, *clocks], clocks, strict=False)],
                "peak_memory_bytes": peak_memory_bytes("cpu"),
            }
        )
    )


if __name__ == "__main__":
    main()
