"""Danlu's own training stage, fast or reference path."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    task = json.loads(sys.argv[1])
    from danlu.data.chat import ChatRenderer
    from danlu.data.pack import TokenFile
    from danlu.models.load import load_tokenizer
    from danlu.recipe.recipe import Recipe
    from danlu.reporter import Reporter
    from danlu.run_dir import RunDir
    from danlu.training.run import run

    recipe = Recipe.model_validate(
        {
            "base_model": task["model"],
            "dataset": task["data"],
            "method": {"type": "lora", "rank": task["rank"], "alpha": task["alpha"]},
            "optim": {
                "learning_rate": task["learning_rate"],
                "global_batch_size": task["global_batch_size"],
                "micro_batch_tokens": task["micro_batch_tokens"],
                "max_steps": task["steps"],
                "scheduler": "constant",
                "warmup_ratio": 0.0,
            },
            "training": {"path": task["variant"], "dtype": "float32", "keep_best": False, "checkpoint_every_seconds": 1e9},
        }
    )
    run_dir = RunDir.create(Path(task["work"]))
    run_dir.data.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in Path(task["data"]).read_text("utf-8").splitlines()]
    renderer = ChatRenderer(load_tokenizer(Path(task["model"])))
    encoded = renderer.encode([renderer.render(row["messages"]) for row in rows])
    TokenFile.write(run_dir.data / "train.tokens", encoded)
    TokenFile.write(run_dir.data / "validation.tokens", [])
    lines: list[dict[str, Any]] = []

    def listen(kind: str, fields: dict[str, Any]) -> None:
        if kind == "metrics":
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
                "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
