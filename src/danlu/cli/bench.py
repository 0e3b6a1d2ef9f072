"""danlu bench."""

from typing import TYPE_CHECKING

import typer

from danlu.text import say

if TYPE_CHECKING:
    from danlu.services.bench import Bench


def bench(
    quick: bool = typer.Option(False, "--quick", help="Measure once instead of three times: under three minutes instead of about seven."),
    threads: int = typer.Option(None, "--threads", min=1, help="Measure with 1 and with so many threads; all of the machine's by default."),
    device: str = typer.Option("auto", "--device", help="auto, cpu or cuda."),
    as_json: bool = typer.Option(False, "--json", help="Machine-readable."),
) -> None:
    """Measure how fast and how small training is on this machine; nothing is downloaded."""
    from danlu.cli.main import json_out
    from danlu.errors import NoEffectError
    from danlu.models.device import device as found_device
    from danlu.services.bench import bench as measure

    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and found_device() == "cpu"):
        why = "PyTorch sees no GPU here" if device == "cuda" else "it is neither auto, cpu nor cuda"
        raise NoEffectError(f"--device {device} cannot be measured", why=why, fix="use --device cpu, or leave it out")
    found = measure(quick=quick, device=found_device() if device == "auto" else device, threads=threads, tell=lambda line: typer.echo(line, err=True))
    if as_json:
        json_out(found.to_dict())
        return
    print_bench(found)


def print_bench(found: "Bench") -> None:
    """Print one row per measurement, then what they mean."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    headings = (
        say("model", "模型"),
        say("path", "路径"),
        say("lengths", "长度"),
        say("threads", "线程"),
        say("tokens/s", "词元/秒"),
        say("peak MB", "峰值 MB"),
        say("share of peak", "占矩阵峰值"),
    )
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position > 2 else "left")
    for row in found.rows:
        numbers = (f"{row.num_threads}", f"{row.tokens_per_second:.0f}", f"{row.peak_memory_bytes / 2**20:.0f}", f"{row.share_of_peak:.0%}")
        table.add_row(row.shape, row.system, row.lengths, *numbers)
    console = Console()
    console.print(table)
    for name in dict.fromkeys(row.shape for row in found.rows):
        speed, memory = found.ratio(name)
        en = f"{name}: the fast path is {speed:.1f}x as fast as the reference path at {memory:.2f}x of its memory, on equal batches without padding."
        zh = f"{name}：在相同且无填充的批次上，快速路径速度为参考路径的 {speed:.1f} 倍，内存为其 {memory:.2f} 倍。"
        console.print(say(en, zh))
    for count, libraries in found.peaks.items():
        rates = ", ".join(f"{library} {rate:.0f}" for library, rate in libraries.items() if rate)
        console.print(say(f"Matrix peak by threads ({count}), GFLOP/s: {rates}", f"矩阵峰值，线程数 {count}（GFLOP/s）：{rates}"))
