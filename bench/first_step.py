"""How long it takes from the start of a run to its first optimizer step, with few and with many rows: `python -m bench.first_step`."""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.first_step", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 100_000], help="numbers of rows (default 100 100000)")
    counts = parser.parse_args().rows
    if len(counts) == 1:
        print(json.dumps(first_step(counts[0])), flush=True)
        return
    for rows in counts:  # each in a process of its own: the first would pay for what all of them import
        subprocess.run([sys.executable, "-m", "bench.first_step", "--rows", str(rows)], check=True)


class Begun(Exception):
    """The first step is done."""


def first_step(num_rows: int) -> dict[str, Any]:
    """Seconds, and seconds of processor time, until the first step of a LoRA run on danlu/tiny is done, and when each part before it began.

    The time of the machine's other work is in the former, that of a second process of the run in neither.
    """
    from danlu.recipe.recipe import Recipe
    from danlu.services.runs import run

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.jsonl"
        write_rows(data, num_rows)
        recipe = {
            "base_model": "danlu/tiny",
            "dataset": str(data),
            "optim": {"max_steps": 1, "global_batch_size": 8, "micro_batch_tokens": 1024},
            "evaluation": {"suites": []},
        }
        seconds: dict[str, tuple[float, float]] = {}
        start, cpu_start = time.monotonic(), time.process_time()

        def listen(kind: str, fields: dict[str, Any]) -> None:
            passed = round(time.monotonic() - start, 2), round(time.process_time() - cpu_start, 2)
            if kind == "metrics" and "loss" in fields:
                seconds["first_step"] = passed
                raise Begun
            if kind != "metrics":
                name = str(fields.get("stage") or fields.get("what") or fields.get("name") or kind)
                seconds.setdefault(name, passed)

        with suppress(Begun):
            run(Recipe.model_validate(recipe), run_dir=Path(folder) / "run", listeners=[listen])
    wall, cpu = seconds["first_step"]
    return {"rows": num_rows, "seconds": wall, "cpu_seconds": cpu, "began": seconds}


def write_rows(file: Path, num_rows: int) -> None:
    """Question and answer of about 60 words each, no two alike."""
    from danlu.bundled import FOLDER

    texts = [m["content"] for line in (FOLDER / "general.jsonl").read_text("utf-8").splitlines() for m in json.loads(line)["messages"]]
    words = sorted({word for text in texts for word in text.split()})
    draw = random.Random(0)
    with file.open("w", encoding="utf-8") as opened:
        for _ in range(num_rows):
            question, answer = (" ".join(draw.choices(words, k=draw.randint(10, 50))) for _ in range(2))
            opened.write(json.dumps({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}) + "\n")


if __name__ == "__main__":
    main()
