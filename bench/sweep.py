"""K adapters in one pass against K runs one after another: `python -m bench.sweep`.

Each measurement is a process of its own, so that its peak memory is its own; both kinds are interleaved. Only the steps after the
first two are timed. Wall seconds count on a quiet machine; CPU seconds say the same on a busy one.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

MODELS: dict[str, dict[str, int]] = {
    # Qwen3-shaped: about 24 M, 108 M parameters.
    "small": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 16384},
    "medium": {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "vocab_size": 32768,
    },
}
WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--adapters", type=int, default=4)
    parser.add_argument("--tokens", default="32,110,287", help="tokens per step of each adapter (default 32,110,287)")
    parser.add_argument("--steps", type=int, default=12, help="timed steps (default 12)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each kind runs, interleaved (default 3)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(**json.loads(arguments.one))))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder) / "model", MODELS[arguments.model])
        print(f"{arguments.model} model, {arguments.adapters} adapters, {arguments.threads} threads, medians of {arguments.rounds} interleaved rounds")
        print("| tokens per step, each | one after another, s/step | one pass, s/step | speed-up (CPU s) | peak of one run, MB | of the pass, MB | ratio |")
        print("|--:|--:|--:|--:|--:|--:|--:|")
        for tokens in (int(text) for text in arguments.tokens.split(",")):
            found: dict[int, list[dict[str, float]]] = {1: [], arguments.adapters: []}
            for number in range(arguments.rounds):
                for count in found:
                    what = {"model": str(model), "count": count, "tokens": tokens, "steps": arguments.steps, "folder": f"{folder}/{tokens}-{count}-{number}"}
                    found[count].append(run_one(what, arguments.threads))
            alone, together = ({key: median(run[key] for run in runs) for key in runs[0]} for runs in found.values())
            wall, cpu = (arguments.adapters * alone[key] / together[key] for key in ("wall_seconds", "cpu_seconds"))
            ratio = together["peak_mb"] / alone["peak_mb"]
            print(
                f"| {tokens} | {arguments.adapters * alone['wall_seconds']:.3f} | {together['wall_seconds']:.3f} | {wall:.2f} ({cpu:.2f}) "
                f"| {alone['peak_mb']:.0f} | {together['peak_mb']:.0f} | {ratio:.2f} |",
                flush=True,
            )


def run_one(what: dict[str, Any], threads: int) -> dict[str, float]:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "bench.sweep", "--one", json.dumps(what)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def write_model(folder: Path, sizes: dict[str, int]) -> Path:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from danlu.bundled import FOLDER

    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((FOLDER / "tiny" / name).read_bytes())
    torch.manual_seed(0)
    Qwen3ForCausalLM(Qwen3Config(head_dim=64, tie_word_embeddings=True, **sizes)).save_pretrained(folder)
    return folder


def measure(model: str, count: int, tokens: int, steps: int, folder: str) -> dict[str, float]:
    """Seconds per step (of all adapters) and peak memory of `count` adapters: alone as a run is, else in one pass."""
    import numpy as np
    import torch

    from danlu.data.pack import EncodedExample, TokenFile
    from danlu.files import write_json
    from danlu.recipe.recipe import Recipe
    from danlu.reporter import SilentReporter
    from danlu.run_dir import RunDir
    from danlu.training.run import run
    from danlu.training.sweep import Member, train_together

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    clock: list[tuple[float, float]] = []

    class Clock(SilentReporter):
        def metrics(self, **values: Any) -> None:
            if "loss" in values and self.run_dir.path.name == "0":
                clock.append((time.perf_counter(), time.process_time()))

    members = []
    for index in range(count):
        run_dir = RunDir.create(Path(folder) / str(index))
        draw = np.random.default_rng(index)
        rows = [EncodedExample(draw.integers(3, 8000, tokens).astype(np.uint32), np.arange(tokens) >= tokens // 2) for _ in range(64)]
        TokenFile.write(run_dir.data / "train.tokens", rows)
        TokenFile.write(run_dir.data / "validation.tokens", [])
        optim = {"max_steps": WARM_UP + steps + 1, "learning_rate": 1e-4 * (index + 1), "global_batch_size": 1, "micro_batch_tokens": max(512, tokens)}
        training = {"checkpoint_every_seconds": 1e6, "validate_every_steps": 1000, "dtype": "float32"}
        values = {"base_model": "b", "dataset": "d", "method": {"type": "lora", "rank": 16}, "optim": optim, "training": training, "seed": index}
        recipe = Recipe.model_validate(values | {"data": {"format": "alpaca", "max_seq_len": 1024}})
        write_json(run_dir.recipe, recipe.to_dict())
        members.append(Member(recipe, run_dir, Clock(run_dir)))
    if count == 1:
        run(members[0].recipe, members[0].run_dir, members[0].reporter, model_dir=Path(model))
    else:
        train_together(members, model_dir=Path(model), device="cpu")
    timed = clock[WARM_UP:-1]
    wall, cpu = ((timed[-1][i] - timed[0][i]) / (len(timed) - 1) for i in (0, 1))
    return {"wall_seconds": wall, "cpu_seconds": cpu, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    main()
