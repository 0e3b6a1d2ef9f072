"""danlu run, resume, runs, report."""

import importlib
import os
import pkgutil
from pathlib import Path
from typing import Any

import typer

from danlu.text import say

PROCESSES = typer.Option(1, "--processes", min=1, help="Processes that train together, one per GPU; the result does not depend on it.")
SHARDING = typer.Option("auto", "--sharding", help="What each process holds: replicate (the whole model), shard (a part of every weight), or auto.")


def names_in(package: str) -> str:
    """Names of what a registry's package holds, without importing what it holds."""
    return ", ".join(module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__))


def run(
    context: typer.Context,
    what: list[str] = typer.Argument(None, help="Recipe files (YAML), a bundled example (danlu/zhangjiajie), and overrides such as optim.learning_rate=1e-4."),
    data: str = typer.Option(None, "--data", "-d", help="Data file, instead of the recipe's `dataset`."),
    model: str = typer.Option(None, "--model", "-m", help="Base model, instead of the recipe's `base_model`; danlu/tiny when neither names one."),
    method: str = typer.Option(None, "--method", help=f"Tuning method: {names_in('danlu.training.methods')}."),
    objective: str = typer.Option(None, "--objective", help=f"Objective: {names_in('danlu.training.objectives')}."),
    run_dir: Path = typer.Option(None, "--run-dir", help="Folder of the run; a new one under DANLU_HOME/runs by default."),
    new: bool = typer.Option(False, "--new", help="Start a new run even when an unfinished one of the same recipe exists."),
    processes: int = PROCESSES,
    sharding: str = SHARDING,
    track: list[str] = typer.Option(None, "--track", help="Tracker that follows the run: tensorboard, wandb, mlflow or swanlab. May be given again."),
    as_json: bool = typer.Option(False, "--json", help="Print report.json to stdout, progress to stderr."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
) -> None:
    """Carry out a recipe: data, training, proof, report. Started again, it goes on where it was.

    Any setting of the recipe can be given as path=value or as --path value, e.g. --method.rank 8.
    """
    from danlu.cli.live import terminal_view
    from danlu.services import runs

    recipe = build_recipe([*(what or []), *context.args], data=data, model=model, method=method, objective=objective)
    with terminal_view(quiet=quiet, plain=as_json) as listener:
        placement = build_placement(processes, sharding)
        result = runs.run(recipe, run_dir=run_dir, new=new, listeners=[listener], placement=placement, track=track or ())
    show_result(result, as_json)


def continue_run(
    context: typer.Context,
    name: str = typer.Argument(..., help="The earlier run: its id, folder, or `last`."),
    settings: list[str] = typer.Argument(None, help="Overrides such as optim.learning_rate=1e-4."),
    data: str = typer.Option(..., "--data", "-d", help="Data file of the new round."),
    replay: float = typer.Option(
        0.2, "--replay", min=0.0, max=10.0, help="Training rows of the earlier run to train on again, as a share of the new ones; 0 for none."
    ),
    run_dir: Path = typer.Option(None, "--run-dir", help="Folder of the new run; a new one under DANLU_HOME/runs by default."),
    processes: int = PROCESSES,
    sharding: str = SHARDING,
    as_json: bool = typer.Option(False, "--json", help="Print report.json to stdout, progress to stderr."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
) -> None:
    """One more round: go on from an earlier run on new data, with some of its rows so that they are not forgotten.

    The report compares with the base model and with the round before, also on what that round held out.
    """
    from danlu.cli.live import terminal_view
    from danlu.services import rounds, runs

    recipe = rounds.next_recipe(name, dataset=data, replay=replay, overrides=overrides_of([*(settings or []), *context.args]))
    with terminal_view(quiet=quiet, plain=as_json) as listener:
        result = runs.run(recipe, run_dir=run_dir, listeners=[listener], placement=build_placement(processes, sharding))
    show_result(result, as_json)


def overrides_of(words: list[str]) -> list[str]:
    """Settings given as path=value or as --path value."""
    found, rest = [], iter(words)
    for word in rest:
        found.append(word if not word.startswith("--") or "=" in word else f"{word[2:]}={_value_of(word, next(rest, None))}")
    return found


def resume(
    name: str = typer.Argument("last", help="Run id, run folder, or `last`."),
    processes: int = PROCESSES,
    sharding: str = SHARDING,
    track: list[str] = typer.Option(None, "--track", help="Trackers that follow the run from now on; by default those that followed it before."),
    as_json: bool = typer.Option(False, "--json", help="Print report.json to stdout, progress to stderr."),
) -> None:
    """Go on with a run that was paused, killed or failed, also in another number of processes."""
    from danlu.cli.live import terminal_view
    from danlu.services import runs

    with terminal_view(plain=as_json) as listener:
        result = runs.resume(name, listeners=[listener], placement=build_placement(processes, sharding), track=track or ())
    show_result(result, as_json)


def runs(context: typer.Context, as_json: bool = typer.Option(False, "--json", help="Machine-readable.")) -> None:
    """List the runs that have a folder in this home, newest first."""
    if context.invoked_subcommand is not None:
        return
    from danlu.cli.main import json_out
    from danlu.services import runs as service

    rows = service.list_runs()
    if as_json:
        json_out(rows)
        return
    if not rows:
        typer.echo(say("No runs yet. Start with: danlu demo", "还没有运行记录。先试试：danlu demo"))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in (say("run", "运行"), say("state", "状态"), say("base model", "基座模型"), say("dataset", "数据集"), say("verdict", "结论")):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(row[key] or "-")) for key in ("id", "state", "base_model", "dataset", "verdict")))
    Console().print(table)


def report(
    name: str = typer.Argument("last", help="Run id, run folder, or `last`."),
    as_json: bool = typer.Option(False, "--json", help="Print report.json to stdout."),
) -> None:
    """Show the proof of a run, and make report.html and report.json again from its files."""
    from danlu.services import runs as service

    run_dir, content = service.report(name)
    _show_report(run_dir.report_html, content, as_json)


def build_placement(processes: int, sharding: str) -> Any:
    """Check the two options of placement."""
    from danlu.errors import NoEffectError
    from danlu.recipe.placement import Placement

    if sharding not in ("auto", "replicate", "shard"):
        raise NoEffectError(f"--sharding {sharding} is not known", why="weights are held whole or in parts", fix="use auto, replicate or shard")
    return Placement(processes=processes, sharding=sharding)


def coach(
    name: str = typer.Argument("last", help="Run id, run folder, or `last`."),
    as_json: bool = typer.Option(False, "--json", help="Machine-readable: name, severity, what, why, fix, evidence, changes."),
) -> None:
    """Say what went wrong in a run, why, and which setting changes it; of a finished, failed or running one."""
    from rich.console import Console

    from danlu.cli.main import json_out
    from danlu.cli.summary import print_coach
    from danlu.services import runs as service

    _, diagnoses = service.coach(name)
    if as_json:
        json_out(diagnoses)
    elif diagnoses:
        print_coach(diagnoses, Console())
    else:
        typer.echo(say("The coach has nothing to object to.", "教练没有发现问题。"))


def build_recipe(
    what: list[str],
    *,
    data: str | None = None,
    model: str | None = None,
    method: str | None = None,
    objective: str | None = None,
    leave_out: tuple[str, ...] = (),
) -> Any:
    """Merge recipe files, bundled examples, options and overrides into a Recipe."""
    from danlu import bundled
    from danlu.errors import RecipeError
    from danlu.recipe.load import load_recipe

    files, overrides = [], []
    words = iter(what)
    for word in words:
        if word.startswith("--"):
            overrides.append(word[2:] if "=" in word else f"{word[2:]}={_value_of(word, next(words, None))}")
        elif "=" in word and not os.path.exists(word):
            overrides.append(word)
        elif (bundled_recipe := bundled.recipe_path(word)) is not None:
            files.append(bundled_recipe)
        elif not os.path.exists(word):
            raise _unknown(word)
        elif word.lower().endswith((".yaml", ".yml")) or os.path.isdir(word):
            files.append(Path(word))
        else:
            raise RecipeError(f"{word} is not a recipe", why="recipes are .yaml files; data files are given with --data", fix=f"danlu run --data {word}")
    values: dict[str, Any] = {key: value for key, value in (("dataset", data), ("base_model", model), ("method", method), ("objective", objective)) if value}
    if not files and "base_model" not in values and not any(o.startswith("base_model=") for o in overrides):
        values["base_model"] = "danlu/tiny"
    return load_recipe(files, overrides, values, leave_out=leave_out)


def _unknown(word: str) -> Exception:
    """The error about a word that is no recipe; the nearest one is named."""
    from difflib import get_close_matches

    from danlu import bundled
    from danlu.errors import RecipeError

    folder = Path(word).parent
    beside = [str(folder / path.name) for path in folder.glob("*.y*ml")] if folder.is_dir() else []
    near = get_close_matches(word, [*bundled.example_names(), *beside], n=1)
    return RecipeError(
        f"there is no recipe {word}",
        why=f"it is neither a file nor one of {', '.join(bundled.example_names())}",
        fix=f"did you mean {near[0]}?" if near else "check the path; a data file is given with --data",
    )


def _value_of(option: str, word: str | None) -> str:
    from danlu.errors import RecipeError

    if word is None or word.startswith("--"):
        raise RecipeError(f"{option} has no value", why="a setting is given as --path value or path=value", fix=f"write {option} VALUE")
    return word


def show_result(result: Any, as_json: bool) -> None:
    """Print how a run ended."""
    from danlu.cli.main import json_out

    if result.outcome == "followed":
        return
    if result.outcome == "paused":
        if as_json:
            json_out({"run_id": result.run_dir.id, "state": "paused"})
        typer.echo(say(f"Paused. Go on with: danlu resume {result.run_dir.id}", f"已暂停。继续：danlu resume {result.run_dir.id}"), err=as_json)
        return
    _show_report(result.run_dir.report_html, result.report, as_json)


def _show_report(html: Path, content: dict[str, Any], as_json: bool) -> None:
    from danlu.cli.main import json_out
    from danlu.cli.summary import print_summary

    if as_json:
        json_out(content)
    else:
        print_summary(content, html)
