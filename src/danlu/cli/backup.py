"""danlu backup, restore, check."""

from pathlib import Path

import typer

from danlu.text import say


def backup(
    folder: Path = typer.Argument(..., help="New folder for the backup."),
    with_artifacts: bool = typer.Option(False, "--with-artifacts", help="Copy the content of datasets, models and exports too, not only its list."),
    as_json: bool = typer.Option(False, "--json", help="Machine-readable."),
) -> None:
    """Copy the database of the home folder, also while it is in use, and list what it refers to."""
    from dataclasses import asdict

    from danlu.cli.main import json_out
    from danlu.services.platform import backups
    from danlu.services.platform.platform import Platform

    platform = Platform.open()
    try:
        made = backups.backup(platform, folder.expanduser(), with_artifacts=with_artifacts)
    finally:
        platform.close()
    if as_json:
        json_out(asdict(made))
        return
    size = f"{made.bytes / 1e6:,.1f} MB"
    _print(
        f"backup in {folder}: database, and {made.artifacts} artifacts ({size}) {'copied' if with_artifacts else 'listed, not copied'}",
        f"备份在 {folder}：数据库，以及 {made.artifacts} 个工件（{size}），{'已复制' if with_artifacts else '只列出，未复制'}",
    )
    if made.database_sha256 is None:
        _print("the database is PostgreSQL's: copy it with pg_dump --format=custom", "数据库是 PostgreSQL：请用 pg_dump --format=custom 另行复制")


def restore(
    folder: Path = typer.Argument(..., help="Folder that `danlu backup` has written."),
    as_json: bool = typer.Option(False, "--json", help="Machine-readable."),
) -> None:
    """Put a backup in place of the present database; the present one is kept beside it. Stop the studio first."""
    from dataclasses import asdict

    from danlu.cli.main import json_out
    from danlu.services.platform import backups
    from danlu.settings import Settings

    done = backups.restore(Settings.from_environment(), folder.expanduser())
    if as_json:
        json_out(asdict(done))
        return
    _print(f"restored; {done.artifacts_restored} artifacts put back", f"已恢复；放回 {done.artifacts_restored} 个工件")
    for path in done.set_aside:
        _print(f"kept: {path}", f"保留：{path}")
    if done.artifacts_missing:
        first = ", ".join(digest[:12] for digest in done.artifacts_missing[:3])
        _print(
            f"{len(done.artifacts_missing)} artifacts are missing ({first}): see them with danlu check",
            f"缺少 {len(done.artifacts_missing)} 个工件（{first}）：用 danlu check 查看",
        )
    if done.jobs_without_data:
        first = ", ".join(done.jobs_without_data[:3])
        _print(f"{len(done.jobs_without_data)} jobs have lost their data: {first}", f"{len(done.jobs_without_data)} 个任务缺少数据：{first}")
    if done.artifacts_missing or done.jobs_without_data:
        raise typer.Exit(7)


def check(as_json: bool = typer.Option(False, "--json", help="Machine-readable.")) -> None:
    """Read the database and every artifact from end to end; exit code 7 when something is missing or damaged."""
    from dataclasses import asdict

    from danlu.cli.main import json_out
    from danlu.services.platform import storage
    from danlu.services.platform.platform import Platform

    platform = Platform.open()
    try:
        found = storage.check(platform)
    finally:
        platform.close()
    if as_json:
        json_out(asdict(found))
    else:
        _print(f"{found.artifacts} artifacts, {found.bytes / 1e6:,.1f} MB read", f"已读 {found.artifacts} 个工件，{found.bytes / 1e6:,.1f} MB")
        for problem in found.problems:
            needed = "" if problem.is_referred_to else say(" (nothing refers to it)", "（没有被引用）")
            _print(f"{problem.subject[:12]}: {problem.what}{needed}", f"{problem.subject[:12]}：{problem.what}{needed}")
        if not found.problems:
            _print("all is whole", "全部完整")
    if found.problems:
        raise typer.Exit(7)


def _print(english: str, chinese: str) -> None:
    from danlu.text import printable

    typer.echo(printable(say(english, chinese)))
