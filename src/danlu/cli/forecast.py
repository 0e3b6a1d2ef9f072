"""danlu forecast, danlu recommend."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from danlu.text import printable, say

if TYPE_CHECKING:
    from danlu.services.forecasts import Prospect

FITS = {"fits": ("fits", "放得下", "green"), "tight": ("tight", "勉强", "yellow"), "too_big": ("too big", "放不下", "red")}
PARTS = {
    "process_bytes": ("Python, libraries, kernels, token cache", "Python、程序库、内核、词元缓存"),
    "weights_bytes": ("base model weights", "基座模型权重"),
    "adapters_bytes": ("adapter", "适配器"),
    "gradients_bytes": ("gradients", "梯度"),
    "optimizer_bytes": ("optimizer state", "优化器状态"),
    "activations_bytes": ("activations", "激活值"),
    "temporary_bytes": ("temporary", "临时"),
}


def forecast(
    context: typer.Context,
    what: list[str] = typer.Argument(None, help="Recipe files, a bundled example, a data file, and overrides such as optim.micro_batch_tokens=1024."),
    data: str = typer.Option(None, "--data", "-d", help="Data file, instead of the recipe's `dataset`."),
    model: str = typer.Option(None, "--model", "-m", help="Base model, instead of the recipe's `base_model`; danlu/tiny when neither names one."),
    method: str = typer.Option(None, "--method", help="Tuning method."),
    objective: str = typer.Option(None, "--objective", help="Objective."),
    memory_gib: float = typer.Option(None, "--memory-gib", min=0.01, help="Memory of another machine to forecast for, instead of what is free here."),
    price_per_hour: float = typer.Option(None, "--price-per-hour", min=0, help="What an hour costs, in any currency (default DANLU_PRICE_PER_HOUR)."),
    probe: bool = typer.Option(False, "--probe", help="Load the model and measure the speed with a few passes; without it no time is told."),
    as_json: bool = typer.Option(False, "--json", help="Machine-readable."),
) -> None:
    """What a run would take, before it starts: memory by part, steps, tokens, disk, and with --probe time and money."""
    from danlu.services import forecasts

    recipe = _recipe([*(what or []), *context.args], data=data, model=model, method=method, objective=objective)
    found = forecasts.forecast_run(recipe, price_per_hour=_price(price_per_hour), memory_bytes=_bytes(memory_gib), with_probe=probe)
    if as_json:
        _json(found.to_dict())
        return
    print_forecast(found)


def recommend(
    context: typer.Context,
    what: list[str] = typer.Argument(..., help="Data file (or recipe, or bundled example), and overrides."),
    model: str = typer.Option(None, "--model", "-m", help="Base model; danlu/tiny by default."),
    goal: str = typer.Option("task", "--goal", help="What the data is to teach: style, knowledge, task or reasoning."),
    write: Path = typer.Option(None, "--write", help="File to write the recipe to; `danlu run FILE` carries it out."),
    memory_gib: float = typer.Option(None, "--memory-gib", min=0.01, help="Memory of another machine to recommend for, instead of what is free here."),
    as_json: bool = typer.Option(False, "--json", help="Machine-readable."),
) -> None:
    """Method, sizes, rates and lengths for a data set and a base model, each with a reason, as a recipe that runs."""
    import yaml

    from danlu.errors import UnknownNameError
    from danlu.files import write_text
    from danlu.recipe.recommend import GOALS
    from danlu.services import forecasts

    if goal not in GOALS:
        raise UnknownNameError(f"unknown goal {goal!r}", why=f"goals are {', '.join(GOALS)}", fix="use --goal task where none of them fits better")
    recipe = _recipe([*what, *context.args], data=None, model=model, method=None, objective=None)
    found = forecasts.recommend_run(recipe, goal=goal, memory_bytes=_bytes(memory_gib))
    text = yaml.safe_dump(runnable(found.recipe), allow_unicode=True, sort_keys=False)
    if write is not None:
        write_text(write, text)
    if as_json:
        _json(found.to_dict() | {"goal": goal, "yaml": text})
        return
    print_reasons(found)
    typer.echo("\n" + text, nl=False)
    print_forecast(found)
    start = f"danlu run {write}"
    hint = say(f"Start it with: {start}", f"开始训练：{start}") if write else say("Keep it with --write FILE.yaml", "用 --write FILE.yaml 保存")
    typer.echo("\n" + hint)


def runnable(recipe: Any) -> dict[str, Any]:
    """The recipe without what is as by default or is told from the file anyway: short enough to read, and it runs as it is."""
    from danlu.recipe.recipe import Recipe

    plain = Recipe.model_validate({"base_model": recipe.base_model, "dataset": recipe.dataset}).to_dict()
    content: dict[str, Any] = {}
    for key, value in recipe.to_dict().items():
        if key in ("base_model", "dataset"):
            content[key] = value
        elif key in ("method", "objective"):
            fields = {name: part for name, part in value.items() if name == "type" or part != _default(getattr(recipe, key), name)}
            content[key] = fields if key == "method" or len(fields) > 1 else fields["type"]
        elif isinstance(value, dict):
            changed = {name: part for name, part in value.items() if part != plain[key].get(name) and (key, name) != ("data", "format")}
            if changed:
                content[key] = changed
        elif value != plain[key]:
            content[key] = value
    return content


def _default(part: Any, name: str) -> Any:
    return None if name in ("rank", "alpha") else type(part).model_fields[name].get_default(call_default_factory=True)


def print_reasons(found: "Prospect") -> None:
    """A table of what was chosen and why."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in (say("setting", "设置"), say("value", "取值"), say("because", "理由"), say("source", "出处")):
        table.add_column(title, overflow="fold")
    for reason in found.reasons:
        value = reason.value["type"] if isinstance(reason.value, dict) and "type" in reason.value else reason.value
        table.add_row(reason.path, Text(printable(str(value))), Text(say(reason.en, reason.zh)), reason.source or "-")
    Console().print(table)


def print_forecast(found: "Prospect") -> None:
    """Memory by part, then everything else, then what would fit instead."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, forecast = Console(), found.forecast
    en, zh, colour = FITS[forecast.fit]
    peak, free = _size(forecast.memory.peak_bytes), _size(forecast.available_bytes)
    console.print()
    console.print(Text(say(f"Memory: {peak} of {free}: {en}", f"内存：{peak} / {free}：{zh}"), style=f"bold {colour}"))
    table = Table(box=None, show_header=False, pad_edge=False)
    for key, label in PARTS.items():
        table.add_row("  " + say(*label), _size(getattr(forecast.memory, key)))
    for name, value in _rows(found):
        table.add_row(Text(name), Text(value))
    console.print(table)
    if forecast.alternatives:
        is_too_big = forecast.fit == "too_big"
        title = say("What would fit:", "放得下的做法：") if is_too_big else say("What would leave more room:", "更宽裕的做法：")
        console.print(Text(title, style="bold"))
    for option in forecast.alternatives:
        settings = " ".join(f"{path}={value}" for path, value in option.changes.items())
        console.print(Text(f"  {settings}  {_size(option.peak_bytes)}  ({say(option.en, option.zh)})"), soft_wrap=True)


def _rows(found: "Prospect") -> list[tuple[str, str]]:
    forecast = found.forecast
    share = forecast.trained_parameters / max(1, forecast.model_parameters)
    rows = [
        (say("steps", "步数"), f"{forecast.num_steps:,}"),
        (say("tokens", "词元"), f"{forecast.num_tokens:,}"),
        (say("shortened examples", "被截短的样例"), f"{forecast.truncated_share:.1%}"),
        (say("trained weights", "训练的参数"), f"{forecast.trained_parameters:,} ({share:.2%})"),
        (say("disk", "磁盘"), _size(forecast.disk_bytes)),
    ]
    if forecast.training_seconds is not None:
        minutes = forecast.training_seconds / 60
        rows.append((say("time of the steps", "训练步用时"), say(f"{minutes:.1f} minutes", f"{minutes:.1f} 分钟")))
    if forecast.cost is not None:
        rows.append((say("money", "费用"), f"{forecast.cost:.2f}"))
    return rows


def _recipe(what: list[str], *, data: str | None, model: str | None, method: str | None, objective: str | None) -> Any:
    """Like `danlu run`, and a data file may stand where a recipe does."""
    from danlu.cli.run import build_recipe

    files = [word for word in what if os.path.isfile(word) and not word.lower().endswith((".yaml", ".yml"))]
    if files and data is None:
        data = files[0]
        what = [word for word in what if word != data]
    return build_recipe(what, data=data, model=model, method=method, objective=objective)


def _price(price_per_hour: float | None) -> float | None:
    from danlu.settings import Settings

    return price_per_hour if price_per_hour is not None else Settings.from_environment().price_per_hour


def _bytes(memory_gib: float | None) -> int | None:
    return None if memory_gib is None else int(memory_gib * 2**30)


def _size(num_bytes: int) -> str:
    for unit, scale in (("TiB", 2**40), ("GiB", 2**30)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:,.2f} {unit}"
    return f"{num_bytes / 2**20:,.0f} MiB"


def _json(value: Any) -> None:
    from danlu.cli.main import json_out

    json_out(value)
