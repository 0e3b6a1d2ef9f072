"""Tables of a bench: medians, ratios, losses, the machine."""

import os
import platform
import re
from pathlib import Path
from statistics import median
from typing import Any

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def rate(result: dict[str, Any]) -> float:
    """Tokens per second of all steps but the first."""
    return float(sum(result["tokens"][1:]) / sum(result["seconds"][1:]))


def cpu_rate(result: dict[str, Any]) -> float:
    """Tokens per second of processor time, all threads together: less disturbed by other work on the machine."""
    return float(sum(result["tokens"][1:]) / sum(result["cpu_seconds"][1:]))


def sees_same_batches(name: str) -> bool:
    """Whether a system takes the file in order, so that its losses have to agree with Danlu's."""
    return name.startswith(("danlu", "trl-precomputed")) or "-dynamic-" in name or name == "trl-1"


def page(kept: dict[str, Any]) -> str:
    """Markdown of everything that was measured, one section per objective, shape and number of threads."""
    return "\n\n".join(section(cell) for cell in kept.values())


def section(cell: dict[str, Any]) -> str:
    """What ran where, then one row per system, the losses, the commands."""
    task, results = cell["task"], cell["runs"]
    rates = {name: median(rate(run) for run in runs) for name, runs in results.items()}
    memory = {name: median(run["peak_memory_bytes"] for run in runs) / 2**20 for name, runs in results.items()}
    num_tokens, num_labels = sum(task["lengths"]), task["num_labels"]
    examples = "pairs" if task["objective"] == "dpo" else "examples"
    lines = [
        f"### {task['objective'].upper()}, {task['shape'].upper()} parameters, {task['threads']} thread{'s' if task['threads'] > 1 else ''}",
        "",
        f"{task['machine']}. LoRA rank {task['rank']} on all linear layers, float32, {task['steps'] * task['global_batch_size']} {examples}, sequences of "
        f"{min(task['lengths'])} to {max(task['lengths'])} tokens ({num_tokens} in all, {num_labels / num_tokens:.0%} trained on), "
        f"{task['global_batch_size']} per step. Medians of interleaved runs; padding is not counted; the first step is left out.",
        "",
        "| system | runs | tokens/s | lowest to highest | tokens per CPU second | peak RSS MB | Danlu is faster by | Danlu's memory |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in sorted(rates, key=lambda n: -rates[n]):
        spread = [rate(run) for run in results[name]]
        cpu = median(cpu_rate(run) for run in results[name])
        faster = f"{rates['danlu'] / rates[name]:.2f}x" if "danlu" in rates else ""
        share = f"{memory['danlu'] / memory[name]:.2f}x" if "danlu" in memory else ""
        numbers = f"{rates[name]:.0f} | {min(spread):.0f} to {max(spread):.0f} | {cpu:.0f} | {memory[name]:.0f} | {faster} | {share}"
        lines.append(f"| {name} | {len(spread)} | {numbers} |")
    lines += ["", _peak(cell, rates), "", "| losses by step | " + " | ".join(str(step + 1) for step in range(task["steps"])) + " |"]
    lines.append("|---" * (task["steps"] + 1) + "|")
    for name in filter(sees_same_batches, results):
        lines.append(f"| {name} | " + " | ".join(f"{loss:.4f}" for loss in results[name][-1]["losses"][: task["steps"]]) + " |")
    commands = dict.fromkeys(run["command"] for runs in results.values() for run in runs)
    return "\n".join([*lines, "", "Commands: " + "; ".join(f"`{command}`" for command in commands) + "."])


def _peak(cell: dict[str, Any], rates: dict[str, float]) -> str:
    """The machine's matrix peak measured beside it, and what Danlu reaches of it."""
    from bench.material import SHAPES
    from danlu.training.flops import executed_flops
    from danlu.training.kernels.attention import BLOCK_ROWS

    task = cell["task"]
    best = {library: max(peak[library] for peak in cell["peaks"]) for library in cell["peaks"][0]}
    line = "Matrix peak measured beside it, GFLOP/s: " + ", ".join(f"{library} {value:.0f}" for library, value in best.items()) + "."
    if "danlu" not in rates or task["objective"] == "dpo":  # of pairs the common prompt is computed once: there is no share to tell
        return line
    flops = executed_flops(SHAPES[task["shape"]], task["lengths"], task["num_labels"], adapter_rank=task["rank"], block_rows=BLOCK_ROWS)
    achieved = rates["danlu"] * flops / sum(task["lengths"]) / 1e9
    share = achieved / max(best["mkl"], best["onednn"])
    return f"{line} Danlu executes {achieved:.0f} GFLOP/s in matrix products: {share:.0%} of the better float32 library's peak."


def machine() -> str:
    """Processor, cores, memory, versions; nothing that names the machine."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    import torch

    processor = model.group(1) if model else platform.processor()
    return f"{processor} ({torch.backends.cpu.get_cpu_capability()}), {os.cpu_count()} cores, {memory:.0f} GiB, torch {torch.__version__}"


def write(page: Path, text: str) -> None:
    """Put `text` between the page's two marks."""
    old = page.read_text("utf-8")
    before, rest = old.split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", "utf-8")
