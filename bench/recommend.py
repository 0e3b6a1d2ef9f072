"""Recommended settings against other tools' defaults at equal compute: `python -m bench.recommend`.

Danlu's own engine trains danlu/tiny on three bundled examples with each set of settings, for the same number of passes over the same rows (so the same
tokens), without early stopping, and measures the loss on the same held-out rows. The settings of other tools are facts from their pages, named below.
`--write docs/recommend.md` puts the table there; `--only TASK,TASK`, `--seeds 2`, `--epochs 3`.
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from bench.environments import FOLDER
from bench.report import machine

BEGIN, END = "<!-- recommend: begin -->", "<!-- recommend: end -->"
TASKS = ("danlu/product-json", "danlu/support-en", "danlu/weekly-report")
LOSES = 0.01
"""A loss that is higher by more than this is lost."""
OTHERS: dict[str, dict[str, Any]] = {
    # LLaMA-Factory, examples/train_lora/qwen3_lora_sft.yaml: rank 8 (alpha is twice that unless set), all layers, 1 x 8, 1e-4, cosine, warm-up 0.1.
    "LLaMA-Factory": {
        "method": {"type": "lora", "rank": 8, "alpha": 16},
        "optim": {"learning_rate": 1e-4, "global_batch_size": 8, "scheduler": "cosine", "warmup_ratio": 0.1},
    },
    # TRL, trl/trainer/sft_config.py: 2e-5; trl/trainer/model_config.py: rank 16, alpha 32, dropout 0.05; TrainingArguments: 8 per step, linear, no warm-up.
    "TRL": {
        "method": {"type": "lora", "rank": 16, "alpha": 32, "dropout": 0.05},
        "optim": {"learning_rate": 2e-5, "global_batch_size": 8, "scheduler": "linear", "warmup_ratio": 0.0},
    },
    # TRL's page on PEFT tells to raise the rate about tenfold for adapters.
    "TRL, rate for adapters": {
        "method": {"type": "lora", "rank": 16, "alpha": 32, "dropout": 0.05},
        "optim": {"learning_rate": 2e-4, "global_batch_size": 8, "scheduler": "linear", "warmup_ratio": 0.0},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(TASKS))
    parser.add_argument("--settings", default=";".join(["Danlu", *OTHERS]), help="Names joined with a semicolon.")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--set", action="append", default=[], help="Another set of settings as JSON: name={...}")
    arguments = parser.parse_args()
    wanted = arguments.settings.split(";")
    others = {name: values for name, values in OTHERS.items() if name in wanted}
    others |= {name: json.loads(text) for name, text in (entry.split("=", 1) for entry in arguments.set)}
    results: dict[str, dict[str, list[float]]] = {}
    for task in arguments.only.split(","):
        sets = ({"Danlu": recommended(task)} if "Danlu" in wanted else {}) | others
        for name, values in sets.items():
            for seed in range(arguments.seeds):
                loss = held_out_loss(task, values, seed=seed, epochs=arguments.epochs)
                results.setdefault(task, {}).setdefault(name, []).append(loss)
                print(f"{task} {name} seed {seed}: {loss:.4f}", flush=True)
    page = table(results, arguments)
    print(page)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "recommend.json").write_text(json.dumps(results, indent=1))
    if arguments.write:
        before, rest = arguments.write.read_text("utf-8").split(BEGIN)
        arguments.write.write_text(f"{before}{BEGIN}\n{page}\n{END}{rest.split(END)[1]}", "utf-8")


def recommended(task: str) -> dict[str, Any]:
    """What `danlu recommend` chooses, without what the comparison holds equal."""
    from danlu.recipe.recipe import Recipe
    from danlu.services.forecasts import recommend_run

    chosen = recommend_run(Recipe(base_model="danlu/tiny", dataset=task)).recipe
    names = ("learning_rate", "global_batch_size", "scheduler", "warmup_ratio")
    return {"method": chosen.method.model_dump(), "optim": {name: getattr(chosen.optim, name) for name in names}}


def held_out_loss(task: str, values: dict[str, Any], *, seed: int, epochs: float) -> float:
    """Nats per token on the held-out quarter of the rows after training on the rest."""
    import numpy as np
    import torch

    from danlu.data.chat import ChatRenderer
    from danlu.data.convert import examples
    from danlu.data.pack import TokenFile
    from danlu.models.catalogue import find_base_model
    from danlu.models.load import load_tokenizer
    from danlu.recipe.recipe import Recipe
    from danlu.reporter import Reporter
    from danlu.run_dir import RunDir
    from danlu.services.datasets import find_dataset
    from danlu.training import run as training
    from danlu.training.forward import score_examples
    from danlu.training.loop import Loop

    optim = values["optim"] | {"num_epochs": epochs, "micro_batch_tokens": 2048}
    settings = {"dtype": "float32", "validate_every_steps": 10**6, "early_stopping_patience": None, "keep_best": False}
    content = {"base_model": "danlu/tiny", "dataset": task, "method": values["method"], "optim": optim, "training": settings, "seed": seed}
    recipe = Recipe.model_validate(content)
    base = find_base_model("danlu/tiny").folder
    rows = list(examples(find_dataset(task), needs="messages"))
    order = np.random.default_rng(seed).permutation(len(rows))
    encoded = [blocks[0] for blocks in recipe.objective.encode([rows[i] for i in order], ChatRenderer(load_tokenizer(base)), 1024)]
    held_out = len(rows) // 4
    with tempfile.TemporaryDirectory() as folder:
        run_dir = RunDir.create(Path(folder))
        TokenFile.write(run_dir.data / "train.tokens", encoded[held_out:])
        TokenFile.write(run_dir.data / "validation.tokens", [])
        model = training.with_method(recipe, *training.base_model(recipe, base, "cpu"))
        loop = Loop(recipe, run_dir, Reporter(run_dir), model, training.likelihood(recipe), torch.device("cpu"))
        assert loop.run() == "finished"
        nats, tokens = score_examples(model, encoded[:held_out], micro_batch_tokens=2048, device="cpu", path="fast")
    return float(nats.sum() / tokens.sum())


def table(results: dict[str, dict[str, list[float]]], arguments: argparse.Namespace) -> str:
    """Markdown: held-out loss of each set, and whether Danlu's wins."""
    names = list(next(iter(results.values())))
    lines = [
        f"Machine: {machine()}. Held-out loss (nats per token), mean of {arguments.seeds} seeds, {arguments.epochs:g} passes. "
        f"Command: `python -m bench.recommend --seeds {arguments.seeds} --epochs {arguments.epochs:g}`.",
        "",
        f"| task | {' | '.join(names)} | Danlu against the best other |",
        f"|---|{'--:|' * len(names)}---|",
    ]
    for task, found in results.items():
        means = {name: mean(losses) for name, losses in found.items()}
        rest = [value for name, value in means.items() if name != "Danlu"]
        verdict = "-"
        if "Danlu" in means and rest:
            change = means["Danlu"] / min(rest) - 1
            verdict = f"{'wins' if change < 0 else 'loses' if change > LOSES else 'even'} ({change:+.1%})"
        cells = " | ".join(f"{means[name]:.4f} ({min(found[name]):.4f} to {max(found[name]):.4f})" for name in names)
        lines.append(f"| {task} | {cells} | {verdict} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
