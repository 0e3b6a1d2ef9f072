"""danlu sweep."""

from pathlib import Path
from typing import Any

import typer

from danlu.text import say


def sweep(
    context: typer.Context,
    what: list[str] = typer.Argument(None, help="Recipe files (YAML, also with a `sweep:` part), a bundled example, and overrides."),
    data: str = typer.Option(None, "--data", "-d", help="Data file, instead of the recipe's `dataset`."),
    model: str = typer.Option(None, "--model", "-m", help="Base model, instead of the recipe's `base_model`; danlu/tiny when neither names one."),
    set_: list[str] = typer.Option([], "--set", help="Values of one setting: method.rank=4,8,16. Every combination is a member; may be given several times."),
    rungs: int = typer.Option(None, "--rungs", help="How often members are compared and the worse ones left before the end (2)."),
    keep: float = typer.Option(None, "--keep", help="Share of the members that goes on after each rung (0.5)."),
    trials: int = typer.Option(None, "--optuna", help="Let Optuna choose the values of so many members."),
    param: list[str] = typer.Option([], "--param", help="Where Optuna searches: optim.learning_rate=1e-5..1e-3:log, method.rank=4..64, a=x|y|z."),
    out: Path = typer.Option(None, "--out", help="Folder of the sweep; one under DANLU_HOME/sweeps by default."),
    as_json: bool = typer.Option(False, "--json", help="Print results.json to stdout, progress to stderr."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
) -> None:
    """Try several settings of one recipe in one pass, leave the losers early, and prove the best. Started again, it goes on where it was."""
    from danlu.cli.main import json_out
    from danlu.files import read_json
    from danlu.services import sweeps

    recipe, config = build_sweep([*(what or []), *context.args], set_, param, {"rungs": rungs, "keep": keep, "trials": trials}, data=data, model=model)
    result = sweeps.sweep(recipe, config, folder=out, tell=lambda *told: None if quiet else _print(*told))
    if as_json:
        json_out(read_json(result.folder / "results.json"))
    else:
        show(result)


def build_sweep(what: list[str], sets: list[str], params: list[str], options: dict[str, Any], *, data: str | None, model: str | None) -> tuple[Any, Any]:
    """The recipe and the search that files and options describe."""
    from pydantic import ValidationError

    from danlu.cli.run import build_recipe
    from danlu.errors import RecipeError
    from danlu.recipe.load import parse_override, read_yaml
    from danlu.recipe.sweep import SweepConfig, split_file

    given: dict[str, Any] = {}
    for word in what:
        if word.lower().endswith((".yaml", ".yml")) and Path(word).is_file():
            given |= split_file(read_yaml(Path(word)), word)[1]
    given |= {name: value for name, value in options.items() if value is not None}
    if sets:
        given["set"] = {path.strip(): _list_of(parse_override, path, text) for path, _, text in (one.partition("=") for one in sets)}
    if params:
        given["space"] = {path.strip(): text for path, _, text in (one.partition("=") for one in params)}
    try:
        config = SweepConfig.model_validate(given)
    except ValidationError as error:
        lines = "; ".join(
            f"{'.'.join(str(part) for part in entry['loc']) or 'sweep'}: {entry['msg'].removeprefix('Value error, ')}" for entry in error.errors()
        )
        raise RecipeError(f"the sweep cannot be understood: {lines}", why="it is checked before anything starts", fix="see docs/sweeps.md") from error
    return build_recipe(what, data=data, model=model, leave_out=("sweep",)), config


def _list_of(parse_override: Any, path: str, text: str) -> list[Any]:
    value: Any = parse_override(f"{path.strip()}=[{text}]")
    for key in path.strip().split("."):
        value = value[key]
    return list(value)


def _print(member: str, kind: str, fields: dict[str, Any]) -> None:
    import sys

    from danlu.text import printable

    line = None
    if kind == "rung":
        kept = ", ".join(fields["kept"])
        line = say(fields["message"] + f": {kept}", f"第 {fields['rung']} 轮淘汰：{kept} 继续")
    elif kind == "metrics" and "validation_loss" in fields:
        line = say(
            f"  {member}  step {fields['step']}  validation loss {fields['validation_loss']:.4f}",
            f"  {member}  第 {fields['step']} 步  验证损失 {fields['validation_loss']:.4f}",
        )
    elif kind in ("alarm", "out_of_memory", "early_stop", "not_finite"):
        line = f"  {member}  {fields['message']}"
    if line is not None:
        print(printable(line), file=sys.stderr, flush=True)


def show(result: Any) -> None:
    """The ranked table, and what to do with the best member."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    paths = list(result.table[0]["settings"]) if result.table else []
    titles = (say("rank", "名次"), say("member", "成员"), *paths, say("validation loss", "验证损失"), say("steps", "步数"), say("state", "状态"))
    for title in titles:
        table.add_column(title, overflow="fold")
    states = {"trained": say("trained", "已完成"), "left": say("left at", "淘汰于"), "failed": say("failed", "失败"), "training": say("unfinished", "未完成")}
    for row in result.table:
        loss = "-" if row["validation_loss"] is None else f"{row['validation_loss']:.4f}"
        is_left = row["state"] == "left"
        note = say(row["note"], row["note"].replace("rung ", "第 ") + " 轮") if is_left else row["note"]
        cells = [
            row["rank"],
            row["name"],
            *row["settings"].values(),
            loss,
            f"{row['steps']}/{row['num_steps']}",
            f"{states[row['state']]} {note}".strip(),
        ]
        table.add_row(*(Text(str(cell)) for cell in cells))
    Console().print(table)
    if result.outcome == "paused":
        typer.echo(say("Paused. The same command goes on.", "已暂停。重复同一命令即可继续。"))
    elif result.best is not None:
        typer.echo(say(f"Best: {result.best}", f"最佳：{result.best}"))
        typer.echo(say(f"  danlu report {result.best}\n  danlu chat {result.best}", f"  danlu report {result.best}\n  danlu chat {result.best}"))
