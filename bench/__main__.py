"""Train the same adapter with several systems, interleaved, and compare tokens per second and peak memory.

Every system gets the same model folder, data, rank, alpha, learning rate, steps, examples per step and number of
threads, float32, no gradient checkpointing. Only training steps are timed; the first one is left out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import material, report
from bench.environments import python_of, variables

FOLDER = Path("build/bench")
SYSTEMS: dict[str, tuple[str, str, str]] = {
    # name: environment, program, variant
    "danlu": ("", "run_danlu.py", "fast"),
    "danlu-reference": ("", "run_danlu.py", "reference"),
    "trl-packing": ("trl", "run_transformers.py", "trl-packing-2"),
    "trl-dynamic-1": ("trl", "run_transformers.py", "trl-dynamic-1"),
    "trl-dynamic-8": ("trl", "run_transformers.py", "trl-dynamic-8"),
    "trl-grouped-4": ("trl", "run_transformers.py", "trl-grouped-4"),
    "hf-dynamic-1": ("trl", "run_transformers.py", "hf-dynamic-1"),
    "hf-dynamic-8": ("trl", "run_transformers.py", "hf-dynamic-8"),
    "hf-grouped-4": ("trl", "run_transformers.py", "hf-grouped-4"),
    "llamafactory-dynamic-1": ("llamafactory", "run_llamafactory.py", "dynamic-1"),
    "llamafactory-dynamic-8": ("llamafactory", "run_llamafactory.py", "dynamic-8"),
    "llamafactory-packing": ("llamafactory", "run_llamafactory.py", "packing-2"),
}
SAME_BATCHES = tuple(name for name in SYSTEMS if name.startswith("danlu") or "-dynamic-" in name)
"""Systems that read the file in order: their losses have to agree with Danlu's."""
LOSS_BOUND = 1e-2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="Danlu's two paths and the machine's matrix peak only (about 3 minutes)")
    parser.add_argument("--only", default="", help=f"comma-separated systems, of: {', '.join(SYSTEMS)}")
    parser.add_argument("--rounds", type=int, default=3, help="how often each system runs, interleaved (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each system (default 2)")
    parser.add_argument("--micro-batch-tokens", type=int, default=2048, help="tokens per forward pass of Danlu (default 2048)")
    parser.add_argument("--examples", type=int, default=40, help="examples in the file, 8 per step (default 40)")
    parser.add_argument("--write", type=Path, help="put the tables into this page, e.g. docs/performance.md")
    arguments = parser.parse_args()
    names = ["danlu", "danlu-reference"] if arguments.quick else [n for n in arguments.only.split(",") if n] or list(SYSTEMS)
    rounds = 1 if arguments.quick else arguments.rounds
    task = prepare(arguments)
    pythons = {name: str(Path(sys.executable) if not SYSTEMS[name][0] else python_of(SYSTEMS[name][0]).absolute()) for name in names}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    peaks = []
    for number in range(rounds):
        peaks.append(last_json([sys.executable, "-m", "bench.peak"], arguments.threads))
        for name in names:
            result = run_one(name, pythons[name], task, arguments.threads)
            results[name].append(result)
            speed = f"{report.rate(result):.0f} tokens/s, {report.cpu_rate(result):.0f} tokens per CPU second"
            print(f"round {number + 1}: {name}: {speed}, {result['peak_rss_bytes'] / 2**20:.0f} MB", flush=True)
    check_losses(results)
    flops = material.executed_flops(task["lengths"], task["labels"], task["rank"], block_rows=task["block_rows"])
    command = "python -m bench " + " ".join(sys.argv[1:])
    page = report.tables(results, peaks, flops / sum(task["lengths"]), task, arguments.threads, command.strip())
    print(page)
    (FOLDER / "results.json").write_text(json.dumps({"results": results, "peaks": peaks, "command": command}, indent=1))
    if arguments.write:
        report.write(arguments.write, page)


def prepare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make model and data where they are missing; return what every system is told."""
    model, data = FOLDER / "model-108m", FOLDER / f"data-{arguments.examples}.jsonl"
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not (model / "tokenizer.json").exists():
        material.make_model(model)
    material.make_data(data, model, num_examples=arguments.examples)
    from danlu.data.chat import ChatRenderer
    from danlu.models.load import load_tokenizer
    from danlu.training.kernels.attention import BLOCK_ROWS

    renderer = ChatRenderer(load_tokenizer(model))
    encoded = renderer.encode([renderer.render(json.loads(line)["messages"]) for line in data.read_text("utf-8").splitlines()])
    return {
        "model": str(model.absolute()),
        "data": str(data.absolute()),
        "in_order": str((FOLDER / "in-order.jsonl").absolute()),
        "steps": arguments.examples // 8,
        "global_batch_size": 8,
        "learning_rate": 1e-3,
        "rank": 16,
        "alpha": 32,
        "max_seq_len": material.MAX_SEQ_LEN,
        "micro_batch_tokens": arguments.micro_batch_tokens,
        "lengths": [len(e.ids) for e in encoded],
        "labels": [int(e.mask[1:].sum()) for e in encoded],
        "block_rows": BLOCK_ROWS,
    }


def run_one(name: str, python: str, task: dict[str, Any], threads: int) -> dict[str, Any]:
    """Run one system once."""
    environment, program, variant = SYSTEMS[name]
    with tempfile.TemporaryDirectory() as work:
        told = {**task, "variant": variant, "work": work, "data": task["in_order"] if environment else task["data"]}
        return last_json([python, str(Path(__file__).parent / "systems" / program), json.dumps(told)], threads)


def last_json(command: list[str], threads: int) -> dict[str, Any]:
    """Run a program and parse the last line of what it prints."""
    done = subprocess.run(command, env=variables(threads), capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        sys.exit(f"{' '.join(command[:2])} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def check_losses(results: dict[str, list[dict[str, Any]]]) -> None:
    """Stop when systems that see the same batches do not learn the same."""
    same = {name: runs[0]["losses"] for name, runs in results.items() if name in SAME_BATCHES}
    if "danlu" not in same:
        return
    for name, losses in same.items():
        gap = abs(losses[0] - same["danlu"][0])
        print(f"losses of {name}: {' '.join(f'{loss:.4f}' for loss in losses)}")
        if gap > LOSS_BOUND:
            sys.exit(f"the first loss of {name} is {gap:.4f} off Danlu's: they do not train the same thing")


if __name__ == "__main__":
    main()
