"""Train the same adapter with several systems, interleaved, and compare tokens per second and peak memory.

Every system gets the same model folder, data, rank, alpha, learning rate, steps, examples per step and number of
threads, float32, no gradient checkpointing. Only training steps are timed; the first one is left out.

Every finished measurement is kept in build/bench/results.json, and the tables are made of all that is kept: a bench can
be made in pieces, interrupted and repeated. `--fresh` forgets what was measured of the systems named before.
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
RESULTS = FOLDER / "results.json"
SYSTEMS: dict[str, tuple[str, str, str]] = {
    # name: environment, program, variant
    "danlu": ("", "run_danlu.py", "fast-exact"),
    "danlu-int8": ("", "run_danlu.py", "fast-int8"),
    "danlu-reference": ("", "run_danlu.py", "reference-exact"),
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
DPO_SYSTEMS: dict[str, tuple[str, str, str]] = {
    "danlu": ("", "run_danlu.py", "fast-exact"),
    "trl-1": ("trl", "run_trl_dpo.py", "1-in_step"),
    "trl-precomputed-1": ("trl", "run_trl_dpo.py", "1-precomputed"),
    "trl-precomputed-4": ("trl", "run_trl_dpo.py", "4-precomputed"),
}
LOSS_BOUND = 1e-2
"""Most difference of the first losses of systems that see the same examples in their first step, trained exactly."""
DPO_LOSS_BOUND = 1e-3
"""Most difference of any step's losses: the first is ln 2 whatever is trained on, so the later ones have to show that it is the same."""


def main() -> None:
    arguments = parse()
    systems = DPO_SYSTEMS if arguments.objective == "dpo" else SYSTEMS
    names = [name for name in arguments.only.split(",") if name] or list(systems)
    unknown = [name for name in names if name not in systems]
    if unknown:
        sys.exit(f"unknown systems {', '.join(unknown)}; there are {', '.join(systems)}")
    kept: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    command = "python -m bench " + " ".join(word for word in sys.argv[1:] if word != "--fresh")
    if arguments.rounds:
        measure(arguments, systems, names, kept, command.split(" --write")[0].strip())
    page = report.page(kept)
    print(page)
    if arguments.write:
        report.write(arguments.write, report.page({name: cell for name, cell in kept.items() if cell["task"]["shape"] != "tiny"}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"comma-separated systems, of: {', '.join(SYSTEMS)}; with --objective dpo: {', '.join(DPO_SYSTEMS)}")
    parser.add_argument("--objective", choices=("sft", "dpo"), default="sft", help="what is trained (default sft)")
    parser.add_argument("--shape", choices=tuple(material.SHAPES), default="108m", help="size of the model (default 108m)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each system runs, interleaved (default 3); 0 prints what is kept")
    parser.add_argument("--threads", type=int, default=2, help="threads of each system (default 2)")
    parser.add_argument("--micro-batch-tokens", type=int, default=1024, help="tokens per forward pass of Danlu (default 1024)")
    parser.add_argument("--examples", type=int, default=40, help="examples (or pairs) in the file, 8 per step (default 40)")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured of these systems in this setting")
    parser.add_argument("--write", type=Path, help="put the tables into this page, e.g. docs/performance.md")
    return parser.parse_args()


def measure(arguments: argparse.Namespace, systems: dict[str, tuple[str, str, str]], names: list[str], kept: dict[str, Any], command: str) -> None:
    """Run `names` in turn, round by round; keep every result as soon as it is there."""
    task = prepare(arguments)
    # Data and batch are a part of a cell: what is not comparable never stands in one table.
    cell = kept.setdefault(f"{arguments.objective}/{arguments.shape}/{arguments.threads}/{arguments.examples}", {"runs": {}, "peaks": []})
    cell["task"] = {**task, "threads": arguments.threads, "objective": arguments.objective, "shape": arguments.shape, "machine": report.machine()}
    if arguments.fresh:
        cell["runs"] = {name: runs for name, runs in cell["runs"].items() if name not in names}
    pythons = {name: str(Path(sys.executable) if not systems[name][0] else python_of(systems[name][0]).absolute()) for name in names}
    for number in range(arguments.rounds):
        cell["peaks"].append(last_json(material.PEAK, arguments.threads))
        for name in names:
            result = run_one(systems[name], pythons[name], task, arguments.threads)
            cell["runs"].setdefault(name, []).append({**result, "command": command, "micro_batch_tokens": arguments.micro_batch_tokens})
            RESULTS.write_text(json.dumps(kept, indent=1), "utf-8")
            speed = f"{report.rate(result):.0f} tokens/s, {report.cpu_rate(result):.0f} tokens per CPU second"
            print(f"round {number + 1}: {name}: {speed}, {result['peak_memory_bytes'] / 2**20:.0f} MB", flush=True)
    check_losses(cell["runs"], is_pairs=arguments.objective == "dpo")


def prepare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make model and data where they are missing; return what every system is told."""
    model = FOLDER / f"model-{arguments.shape}"
    data = FOLDER / f"{arguments.objective}-{arguments.shape}-{arguments.examples}.jsonl"
    in_order = data.with_name(f"in-order-{data.name}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not (model / "tokenizer.json").exists():
        material.make_model(model, material.SHAPES[arguments.shape])
    material.make_data(data, in_order, model, num_examples=arguments.examples, is_pairs=arguments.objective == "dpo")
    encoded = material.encode(data, model, is_pairs=arguments.objective == "dpo")
    return {
        "model": str(model.absolute()),
        "data": str(data.absolute()),
        "in_order": str(in_order.absolute()),
        "objective": arguments.objective,
        "steps": arguments.examples // 8,
        "global_batch_size": 8,
        "learning_rate": 1e-3,
        "rank": 16,
        "alpha": 32,
        "max_seq_len": material.MAX_SEQ_LEN,
        "micro_batch_tokens": arguments.micro_batch_tokens,
        "lengths": [len(e.ids) for e in encoded],
        "num_labels": sum(int(e.mask[1:].sum()) for e in encoded),
    }


def run_one(system: tuple[str, str, str], python: str, task: dict[str, Any], threads: int) -> dict[str, Any]:
    """Run one system once."""
    environment, program, variant = system
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


def check_losses(runs: dict[str, list[dict[str, Any]]], *, is_pairs: bool) -> None:
    """Stop when systems that see the same examples in the first step do not have the same loss there; of pairs, in any step."""
    same = {name: found[-1]["losses"] for name, found in runs.items() if report.sees_same_batches(name) and name != "danlu-int8"}
    if "danlu" not in same:
        return
    for name, losses in same.items():
        gaps = [abs(loss - own) for loss, own in zip(losses, same["danlu"], strict=False)]
        if gaps[0] > LOSS_BOUND or (is_pairs and max(gaps) > DPO_LOSS_BOUND):
            sys.exit(f"the losses of {name} are {max(gaps):.4f} off Danlu's: they do not train the same thing")


if __name__ == "__main__":
    main()
