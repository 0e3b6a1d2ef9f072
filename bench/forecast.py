"""Forecast against measurement: `python -m bench.forecast` trains small models, each in a process of its own, and compares.

For every configuration: the peak that the formula says (config.json, recipe and lengths alone), the peak after the probe's correction, and the
peak that the kernel saw; the time that the probe says and the time the steps took. Growth is what the run added to the process before the model
was loaded. `--write docs/forecast.md` puts the table there; `--only NAME,NAME` runs some; times want an idle machine, memory does not care.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.environments import FOLDER, variables
from bench.report import machine

BEGIN, END = "<!-- forecast: begin -->", "<!-- forecast: end -->"
SHAPES: dict[str, dict[str, Any]] = {
    "2M": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 8000},
    "6M": {"hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 8000},
    "31M": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 8192},
    "108M": {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4, "vocab_size": 32768},
    "wide-vocabulary": {
        "hidden_size": 256,
        "intermediate_size": 640,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
    },
}
SHORT, MEDIUM, LONG = (30, 120), (100, 400), (400, 1000)
LORA, FULL = {"type": "lora", "rank": 16}, {"type": "full"}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "2M lora": {"shape": "2M", "method": LORA, "lengths": MEDIUM, "tokens": 2048},
    "2M full": {"shape": "2M", "method": FULL, "lengths": MEDIUM, "tokens": 2048},
    "2M lora long": {"shape": "2M", "method": LORA, "lengths": LONG, "tokens": 4096},
    "2M lora 8192": {"shape": "2M", "method": LORA, "lengths": LONG, "tokens": 8192},
    "6M lora": {"shape": "6M", "method": LORA, "lengths": SHORT, "tokens": 2048},
    "6M lora medium": {"shape": "6M", "method": LORA, "lengths": MEDIUM, "tokens": 4096},
    "6M lora 512": {"shape": "6M", "method": LORA, "lengths": MEDIUM, "tokens": 512},
    "6M lora rank 128": {"shape": "6M", "method": {"type": "lora", "rank": 128}, "lengths": MEDIUM, "tokens": 2048},
    "6M lora dropout": {"shape": "6M", "method": {**LORA, "dropout": 0.1}, "lengths": MEDIUM, "tokens": 2048},
    "6M lora q+v": {"shape": "6M", "method": {**LORA, "target_modules": ["q_proj", "v_proj"]}, "lengths": MEDIUM, "tokens": 2048},
    "6M lora reference": {"shape": "6M", "method": LORA, "lengths": MEDIUM, "tokens": 1024, "path": "reference"},
    "6M full": {"shape": "6M", "method": FULL, "lengths": MEDIUM, "tokens": 2048},
    "6M full muon": {"shape": "6M", "method": FULL, "lengths": MEDIUM, "tokens": 2048, "optimizer": "muon"},
    "6M full reference": {"shape": "6M", "method": FULL, "lengths": SHORT, "tokens": 1024, "path": "reference"},
    "6M lora bfloat16": {"shape": "6M", "method": LORA, "lengths": SHORT, "tokens": 1024, "dtype": "bfloat16"},
    "6M lora int8": {"shape": "6M", "method": LORA, "lengths": MEDIUM, "tokens": 2048, "compute": "int8"},
    "6M dora": {"shape": "6M", "method": {**LORA, "use_dora": True}, "lengths": MEDIUM, "tokens": 2048},
    "6M ia3": {"shape": "6M", "method": {"type": "ia3"}, "lengths": MEDIUM, "tokens": 2048},
    "6M p_tuning_v2": {"shape": "6M", "method": {"type": "p_tuning_v2"}, "lengths": MEDIUM, "tokens": 2048},
    "6M prompt_tuning": {"shape": "6M", "method": {"type": "prompt_tuning"}, "lengths": MEDIUM, "tokens": 2048},
    "31M lora": {"shape": "31M", "method": LORA, "lengths": MEDIUM, "tokens": 2048},
    "31M lora 4096": {"shape": "31M", "method": LORA, "lengths": LONG, "tokens": 4096},
    "31M full": {"shape": "31M", "method": FULL, "lengths": MEDIUM, "tokens": 1024},
    "31M full muon": {"shape": "31M", "method": FULL, "lengths": SHORT, "tokens": 1024, "optimizer": "muon"},
    "108M lora 512": {"shape": "108M", "method": LORA, "lengths": SHORT, "tokens": 512},
    "108M lora": {"shape": "108M", "method": LORA, "lengths": MEDIUM, "tokens": 2048},
    "108M full": {"shape": "108M", "method": FULL, "lengths": SHORT, "tokens": 512},
    "wide vocabulary lora": {"shape": "wide-vocabulary", "method": LORA, "lengths": MEDIUM, "tokens": 2048},
    "wide vocabulary full": {"shape": "wide-vocabulary", "method": FULL, "lengths": SHORT, "tokens": 512},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CONFIGURATIONS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print("\n" + json.dumps(measure(json.loads(arguments.one))))
        return
    results = {}
    for name in arguments.only.split(","):
        configuration = CONFIGURATIONS[name] | {"steps": arguments.steps}
        configuration["model"] = str(make_model(configuration["shape"]).absolute())
        command = [sys.executable, "-m", "bench.forecast", "--one", json.dumps(configuration)]
        done = subprocess.run(command, env=variables(arguments.threads), capture_output=True, text=True, encoding="utf-8")
        if done.returncode:
            sys.exit(f"{name} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        results[name] = json.loads(done.stdout.strip().splitlines()[-1])
        print(row(name, results[name]), flush=True)
    page = table(results, arguments.threads)
    print(page)
    (FOLDER / "forecast.json").write_text(json.dumps(results, indent=1))
    if arguments.write:
        before, rest = arguments.write.read_text("utf-8").split(BEGIN)
        arguments.write.write_text(f"{before}{BEGIN}\n{page}\n{END}{rest.split(END)[1]}", "utf-8")


def make_model(shape: str) -> Path:
    """A random Qwen3 model of that shape on disk, in bfloat16 as models are published."""
    folder = FOLDER / f"model-forecast-{shape}"
    if not (folder / "model.safetensors").exists():
        import torch
        from transformers import AutoModelForCausalLM, Qwen3Config

        from danlu.bundled import FOLDER as BUNDLED

        folder.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(BUNDLED / "tiny" / name, folder / name)
        torch.manual_seed(0)
        common = {"head_dim": 64, "max_position_embeddings": 2048, "tie_word_embeddings": True, "eos_token_id": 2, "pad_token_id": 0, "bos_token_id": None}
        AutoModelForCausalLM.from_config(Qwen3Config(**SHAPES[shape], **common), dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def measure(configuration: dict[str, Any]) -> dict[str, Any]:
    """Train a few steps in this process; return what was said before and what was seen after."""
    import resource

    import numpy as np

    from danlu.data.pack import EncodedExample, TokenFile
    from danlu.files import read_json
    from danlu.models.headroom import resident_bytes
    from danlu.models.memory import peak_memory
    from danlu.models.shape import ModelShape
    from danlu.recipe.recipe import Recipe
    from danlu.reporter import Reporter
    from danlu.run_dir import RunDir
    from danlu.training import probe
    from danlu.training import run as training

    model = Path(configuration["model"])
    config = read_json(model / "config.json")
    draw = np.random.default_rng(0)
    low, high = configuration["lengths"]
    examples = [
        EncodedExample(draw.integers(3, 8000, n).astype(np.uint32), np.arange(n) >= 0.6 * n) for n in draw.integers(low, high, 16 * configuration["steps"])
    ]
    with tempfile.TemporaryDirectory() as work:
        run_dir = RunDir.create(Path(work))
        TokenFile.write(run_dir.data / "train.tokens", examples)
        TokenFile.write(run_dir.data / "validation.tokens", [])
        values = {
            "base_model": str(model),
            "dataset": "d",
            "method": configuration["method"],
            "optim": {
                "learning_rate": 1e-4,
                "max_steps": configuration["steps"],
                "global_batch_size": 16,
                "micro_batch_tokens": configuration["tokens"],
                "optimizer": configuration.get("optimizer", "adamw"),
            },
            "data": {"max_seq_len": 1024, "format": "messages"},
            "training": {
                "path": configuration.get("path", "fast"),
                "dtype": configuration.get("dtype", "float32"),
                "compute": configuration.get("compute", "exact"),
                "validate_every_steps": 1000,
            },
        }
        recipe = Recipe.model_validate(values)
        before = resident_bytes()
        lengths = probe.lengths_of(TokenFile(run_dir.data / "train.tokens"), 1)
        parts = peak_memory(ModelShape.from_config(config), recipe, lengths.tokens, lengths.labels, process_bytes=before, stored_bytes_per_weight=2)
        training.run(recipe, run_dir, Reporter(run_dir), model_dir=model)
        said, result = run_dir.read_record()["forecast"], read_json(run_dir.path / "training.json")
    return {
        "before_bytes": before,
        "formula": parts.to_dict(),
        "probe_bytes": said["peak_memory_bytes"],
        "measured_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "said_seconds": said["training_seconds"],
        "seconds": result["training_seconds"],
    }


def row(name: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    before, measured, formula = found["before_bytes"], found["measured_bytes"], found["formula"]["peak_bytes"]
    mib = [f"{value / 2**20:.0f}" for value in (before, measured - before, formula - before, found["probe_bytes"] - before)]
    off = [f"{value / measured - 1:+.0%}" for value in (formula, found["probe_bytes"])]
    grown = f"{(formula - before) / (measured - before) - 1:+.0%}"
    seconds = f"{found['said_seconds']:.1f} | {found['seconds']:.1f} | {found['said_seconds'] / found['seconds'] - 1:+.0%}"
    return f"| {name} | {mib[0]} | {mib[1]} | {mib[2]} | {grown} | {off[0]} | {mib[3]} | {off[1]} | {seconds} |"


def table(results: dict[str, dict[str, Any]], threads: int) -> str:
    """Markdown with the count of those within the bounds."""
    command = f"python -m bench.forecast {' '.join(a for a in sys.argv[1:])}".strip()
    peaks = [found["formula"]["peak_bytes"] / found["measured_bytes"] - 1 for found in results.values()]
    probes = [found["probe_bytes"] / found["measured_bytes"] - 1 for found in results.values()]
    times = [found["said_seconds"] / found["seconds"] - 1 for found in results.values()]
    lines = [
        f"Machine: {machine()}; {threads} threads. Command: `{command}`.",
        "",
        "| configuration | MiB before | growth measured | growth by formula | off | peak off | growth by probe | peak off | s said | s measured | off |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        *(row(name, found) for name, found in results.items()),
        "",
        f"Peak memory within 15 %: {sum(abs(p) <= 0.15 for p in peaks)} of {len(peaks)} by the formula, {sum(abs(p) <= 0.15 for p in probes)} after the probe. "
        f"Time within 25 %: {sum(abs(t) <= 0.25 for t in times)} of {len(times)}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
