"""danlu submit, queue, logs, cancel: work for the platform, on this machine's home or on a server."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from danlu.cli.nouns import JSON, PROJECT, SERVER, studio
from danlu.text import printable, say


def submit(
    context: typer.Context,
    what: Annotated[
        list[str], typer.Argument(help="Recipe files (YAML), a bundled example (danlu/zhangjiajie), and overrides such as optim.learning_rate=1e-4.")
    ] = [],  # noqa: B006
    data: Annotated[str | None, typer.Option("--data", "-d", help="Dataset, or a data file, which is brought in first; instead of the recipe's.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Base model; danlu/tiny when no recipe names one.")] = None,
    project: Annotated[str | None, PROJECT] = None,
    name: Annotated[str, typer.Option("--name", help="What people call the run.")] = "",
    priority: Annotated[str, typer.Option("--priority", help="express, standard or saver.")] = "standard",
    at: Annotated[str | None, typer.Option("--at", help="Start no sooner: tonight (22:00), 22:30, or 2026-11-30 06:00.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the run is over, and end with its exit code.")] = False,
    as_json: Annotated[bool, JSON] = False,
    server: Annotated[str | None, SERVER] = None,
) -> None:
    """Put a run into the queue, to be carried out by a worker; `danlu run` carries it out here and now.

    Any setting of the recipe can be given as path=value or as --path value, e.g. --method.rank 8.
    """
    from danlu.cli.datasets import bring_in
    from danlu.cli.run import build_recipe
    from danlu.cli.tables import write_json
    from danlu.cli.times import moment
    from danlu.recipe.load import with_settings
    from danlu.store.runs import Run

    not_before = None if at is None else moment(at, time.time())
    recipe = build_recipe([*what, *context.args], data=data, model=model)
    with studio(server) as opened:
        if data is not None and Path(data).expanduser().is_file():
            made = bring_in(opened, Path(data), project=project)
            recipe = with_settings(recipe, {"dataset": made.ref})
            if not as_json:
                typer.echo(printable(say(f"Added: {made.ref}", f"已添加：{made.ref}")))
        run = opened.runs.submit(recipe, project=project, name=name, priority=priority, not_before=not_before)
        if not as_json:
            typer.echo(say(f"Submitted: {run.id}\n  danlu logs {run.id} --follow", f"已提交：{run.id}\n  danlu logs {run.id} --follow"))
        try:
            if wait:
                run.wait()
        except KeyboardInterrupt:
            typer.echo(say(f"The run goes on. End it with: danlu cancel {run.id}", f"运行仍在继续。要结束它：danlu cancel {run.id}"), err=True)
            raise
        finally:  # also of a run that failed: its error follows, on the other output
            if as_json:
                write_json(Run, run.record)
            elif run.is_over:
                typer.echo(say(f"Over: {run.state}", f"已结束：{run.state}"))


def queue(
    project: Annotated[str | None, PROJECT] = None,
    as_json: Annotated[bool, JSON] = False,
    server: Annotated[str | None, SERVER] = None,
) -> None:
    """Show what runs and what waits, in the order it will start."""
    from danlu.cli.tables import show
    from danlu.services.platform.jobs import list_queue

    with studio(server) as opened:
        project_id = None if project is None else opened.project_id(project)
        show(list_queue, opened.jobs.queue(project_id=project_id), as_json=as_json)


def logs(
    name: Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, or of a run for all its jobs.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until nothing more will come.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON text per piece and line.")] = False,
    server: Annotated[str | None, SERVER] = None,
) -> None:
    """Print the log of a job or a run."""
    import orjson

    with studio(server) as opened:
        pieces = opened.runs.get(name).log(follow=follow) if is_run(name) else opened.jobs.log(name, follow=follow)
        for piece in pieces:
            sys.stdout.write(orjson.dumps({"text": piece}).decode() + "\n" if as_json else printable(piece.replace("\r\n", "\n")))
            sys.stdout.flush()


def cancel(
    name: Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, or of a run for all its jobs.")],
    as_json: Annotated[bool, JSON] = False,
    server: Annotated[str | None, SERVER] = None,
) -> None:
    """End a job, or all jobs of a run; what they have saved stays."""
    from danlu.cli.tables import show
    from danlu.services.platform.jobs import cancel_job
    from danlu.services.platform.runs import get_run

    with studio(server) as opened:
        told: Any = (get_run, opened.runs.get(name).cancel().record) if is_run(name) else (cancel_job, opened.jobs.cancel(name))
    show(*told, as_json=as_json)


def is_run(name: str) -> bool:
    """Whether an id is a run's."""
    return name.startswith("run_")
