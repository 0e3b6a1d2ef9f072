"""Tables of a bench: medians, ratios, the machine."""

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


def tables(
    results: dict[str, list[dict[str, Any]]], peaks: list[dict[str, Any]], flops_per_token: float, task: dict[str, Any], threads: int, command: str
) -> str:
    """Markdown: what ran where, then one row per system."""
    rates = {name: median(rate(run) for run in runs) for name, runs in results.items()}
    memory = {name: median(run["peak_rss_bytes"] for run in runs) / 2**20 for name, runs in results.items()}
    num_tokens, num_labels = sum(task["lengths"]), sum(task["labels"])
    lines = [
        f"Machine: {machine()}; {threads} threads per system. Command: `{command}`.",
        "",
        f"Work: Qwen3 shape of 108 M parameters, LoRA rank {task['rank']} on all linear layers, float32, {len(task['lengths'])} examples of "
        f"{min(task['lengths'])} to {max(task['lengths'])} tokens ({num_tokens} in all, {num_labels / num_tokens:.0%} trained on), "
        f"{task['global_batch_size']} per step. Medians of {len(peaks)} interleaved runs; padding is not counted as tokens; the first step is left out.",
        "",
        "| system | tokens/s | lowest to highest | tokens per CPU second | peak RSS MB | Danlu is faster by | Danlu's memory |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in sorted(rates, key=lambda n: -rates[n]):
        spread = [rate(run) for run in results[name]]
        cpu = median(cpu_rate(run) for run in results[name])
        faster = f"{rates['danlu'] / rates[name]:.2f}x" if "danlu" in rates else ""
        share = f"{memory['danlu'] / memory[name]:.2f}x" if "danlu" in memory else ""
        lines.append(f"| {name} | {rates[name]:.0f} | {min(spread):.0f} to {max(spread):.0f} | {cpu:.0f} | {memory[name]:.0f} | {faster} | {share} |")
    best = {library: max(peak[library] for peak in peaks) for library in ("mkl", "onednn")}
    lines += ["", f"Float32 matrix peak measured beside it: oneDNN {best['onednn']:.0f} GFLOP/s, MKL {best['mkl']:.0f} GFLOP/s."]
    if "danlu" in rates:
        achieved = rates["danlu"] * flops_per_token / 1e9
        lines[-1] += f" Danlu executes {achieved:.0f} GFLOP/s in matrix products: {achieved / max(best.values()):.0%} of the better library's peak."
    return "\n".join(lines)


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
