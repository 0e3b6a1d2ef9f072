"""danlu merge."""

from pathlib import Path

import typer


def merge(
    names: list[str] = typer.Argument(..., help="Two or more finished runs over the same base model: ids or folders."),
    out: Path = typer.Option(..., "--out", help="New folder for the merged run."),
    how: str = typer.Option("linear", "--how", help="linear (exact weighted sum), svd (the same at one rank), ties, dare_linear or dare_ties."),
    weights: str = typer.Option(None, "--weights", help="One number per run, such as 0.7,0.3; equal shares by default."),
    rank: int = typer.Option(None, "--rank", min=1, help="Rank of the result (not for linear); the largest of the runs by default."),
    density: float = typer.Option(0.5, "--density", help="Share of each run's changes that is kept (ties and dare)."),
    as_json: bool = typer.Option(False, "--json", help="Print report.json to stdout, progress to stderr."),
) -> None:
    """Make one adapter of several, verify it, and prove it on what all of its runs held out."""
    from danlu.cli.live import terminal_view
    from danlu.cli.run import show_result
    from danlu.services.merging import merge as merge_runs

    with terminal_view(plain=as_json) as listener:
        result = merge_runs(names, out, how=how, weights=_numbers(weights), rank=rank, density=density, listeners=[listener])
    show_result(result, as_json)


def _numbers(text: str | None) -> list[float] | None:
    from danlu.errors import NoEffectError

    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError as error:
        raise NoEffectError(f"--weights {text} are no numbers", why="each run has one weight", fix="write for example --weights 0.7,0.3") from error
