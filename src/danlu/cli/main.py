"""Entry point: builds the command tree, runs it, and shows errors as what / why / fix.

Nothing heavy is imported here: every command imports what it needs when it is called.
"""

import os
import sys
from typing import Any

import typer

from danlu.cli import backup, bench, chat, data, demo, doctor, export, forecast, merge, nouns, queue, recipe, run, studio, sweep
from danlu.cli.sections import Sections
from danlu.errors import DanluError, InternalError, MissingExtraError
from danlu.logs import quieten_libraries

app = typer.Typer(
    name="danlu",
    cls=Sections,
    help="Turn a general language model into your own specialist, and prove that it got better.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}

app.command("run", context_settings=EXTRA)(run.run)
app.command("forecast", context_settings=EXTRA)(forecast.forecast)
app.command("recommend", context_settings=EXTRA)(forecast.recommend)
app.command("resume")(run.resume)
app.command("continue", context_settings=EXTRA)(run.continue_run)
app.command("report")(run.report)
app.command("coach")(run.coach)
app.command("chat")(chat.chat)
app.command("export")(export.export)
app.command("merge")(merge.merge)
app.command("sweep", context_settings=EXTRA)(sweep.sweep)
app.command("demo")(demo.demo)
app.command("bench")(bench.bench)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("check")(backup.check)
app.command("studio")(studio.studio)
app.command("worker")(studio.worker)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")
app.add_typer(recipe.app, name="recipe")
app.command("submit", context_settings=EXTRA)(queue.submit)
app.command("queue")(queue.queue)
app.command("logs")(queue.logs)
app.command("cancel")(queue.cancel)
for _noun, _help in nouns.NOUNS.items():
    _is_runs = _noun == "runs"  # alone, it lists the run folders of this home
    _group = typer.Typer(cls=nouns.NounGroup, no_args_is_help=not _is_runs, invoke_without_command=_is_runs, rich_markup_mode=None)
    if _is_runs:
        _group.callback()(run.runs)
    app.add_typer(_group, name=_noun, help=_help)


def _version(value: bool) -> None:
    if value:
        import danlu

        typer.echo(f"danlu {danlu.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    if debug:
        os.environ["DANLU_DEBUG"] = "1"


def main() -> None:
    """Run the command line; exit code 0, the error's own, 2 for wrong usage, 130 after Ctrl-C."""
    quieten_libraries()
    try:
        app(prog_name="danlu")
    except DanluError as error:
        sys.exit(_show(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has gone; closing stdout again at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:  # the door's last handler
        if os.environ.get("DANLU_DEBUG"):
            raise
        sys.exit(_show(_missing(error) or _defect(error)))


def _missing(error: Exception) -> DanluError | None:
    """The error about a package that an extra would bring."""
    from danlu.services.doctor import EXTRAS

    name = ((error.name if isinstance(error, ModuleNotFoundError) else "") or "").partition(".")[0]
    for extra, (modules, _, _) in EXTRAS.items():
        if name in modules:
            return MissingExtraError(f"this needs the package {name}", why=f"it comes with the extra `{extra}`", fix=f"pip install 'danlu[{extra}]'")
    return None


def _defect(error: Exception) -> DanluError:
    return InternalError(
        f"danlu crashed: {type(error).__name__}: {error}",
        why="a defect in Danlu, not in your input",
        fix="run again with `danlu --debug ...` and report the traceback",
    )


def _show(error: DanluError) -> int:
    if os.environ.get("DANLU_DEBUG"):
        import traceback

        traceback.print_exception(error)
    from danlu.text import language

    _write(_in_chinese(error) if language() == "zh" else f"error {error}\n  docs: docs/errors.md#{error.code.lower()}")
    return error.exit_code


def _in_chinese(error: DanluError) -> str:
    """The error in Chinese; what was not known in Chinese stands below as it is."""
    from danlu.errors import chinese

    told = chinese.told(error)
    lines = [f"错误 {error.code}：{told.what}", f"  原因：{told.why}", f"  解决：{told.fix}"]
    if chinese.in_chinese(error.what) == error.what or chinese.in_chinese(error.why) == error.why:
        lines += ["  原文：" + str(error).replace("\n", "\n  ")]
    return "\n".join([*lines, f"  文档：docs/errors.zh-CN.md#{error.code.lower()}"])


def _write(message: str) -> None:
    """Write to stderr what a terminal can show: control characters of file names and data stay visible, not active."""
    from danlu.text import printable

    print(printable(message), file=sys.stderr)


def json_out(value: Any) -> None:
    """Write a value as JSON to stdout: the machine-readable result of a command."""
    import orjson

    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")


if __name__ == "__main__":
    main()
