"""danlu export."""

from pathlib import Path

import typer

from danlu.text import say


def export(
    name: str = typer.Argument("last", help="Run id, run folder, or `last`."),
    to: str = typer.Option(..., "--to", help="adapter (small, needs the base model) or merged (one whole model)."),
    out: Path = typer.Option(None, "--out", help="New folder to write to; <run>/exports/<format> by default."),
    as_json: bool = typer.Option(False, "--json", help="Print run, format, folder and what was verified to stdout, progress to stderr."),
) -> None:
    """Turn a run into files others can load, refused unless they behave like what was trained."""
    from danlu.cli.live import terminal_view
    from danlu.cli.main import json_out
    from danlu.files import read_json
    from danlu.reporter import Reporter
    from danlu.services.exports import export as export_run
    from danlu.services.runs import open_run

    run_dir = open_run(name)
    with terminal_view(plain=as_json) as listener:
        folder = export_run(run_dir, to, Reporter(run_dir, listener), out=out)
    if as_json:
        json_out({"run_id": run_dir.id, "format": to, "folder": str(folder), "verification": read_json(folder / "verification.json")})
        return
    typer.echo(say(f"Exported and verified: {folder}", f"已导出并验证：{folder}"))
