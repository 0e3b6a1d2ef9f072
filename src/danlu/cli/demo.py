"""danlu demo."""

import shutil
import sys
from pathlib import Path

import typer

from danlu.text import say


def demo(
    example: str = typer.Argument("danlu/zhangjiajie", help="Bundled example to run."),
    as_json: bool = typer.Option(False, "--json", help="Print report.json to stdout, progress to stderr."),
) -> None:
    """The whole loop on the embedded model and a bundled dataset, in a few minutes on a CPU."""
    from danlu.cli.live import terminal_view
    from danlu.cli.run import build_recipe, show_result
    from danlu.services import runs

    if not as_json:
        typer.echo(
            say(
                f"Danlu trains its embedded model on {example}, then proves what changed.",
                f"丹炉用 {example} 训练内置小模型，再证明它变了多少。",
            )
        )
    recipe = build_recipe([example])
    with terminal_view(plain=as_json) as listener:
        result = runs.run(recipe, listeners=[listener])
    show_result(result, as_json)
    if as_json or result.outcome != "finished":
        return
    show_next(result.run_dir.id)


def show_next(run_id: str) -> None:
    """Print what to do after the demo, as commands that work in this terminal."""
    activate = Path(sys.prefix) / "bin" / "activate"
    first = {f"source {activate}": ("once in each terminal, so that it knows `danlu`", "每个终端执行一次，之后才能直接使用 danlu")}
    steps = {
        **(first if shutil.which("danlu") is None and activate.is_file() else {}),
        "danlu studio": ("the studio in your browser: your own data, runs, proof, chat", "在浏览器里打开工作室：自己的数据、训练、证明、对话"),
        f"danlu chat {run_id}": ("talk to it; /base switches to the model before training", "和它聊聊；/base 切回训练前的模型"),
        f"danlu export {run_id} --to merged": ("one folder that any tool loads, verified", "导出为任何工具都能加载的模型，并做验证"),
        "danlu data inspect YOUR.jsonl": ("look at your own data", "检查你自己的数据"),
        "danlu run --data YOUR.jsonl": ("train on it (danlu/tiny; or --model FOLDER)", "用它训练（默认 danlu/tiny，或用 --model 指定）"),
    }
    typer.echo("\n" + say("What next:", "接下来："))
    for command, (en, zh) in steps.items():
        typer.echo(f"  {command:{max(map(len, steps))}}  # {say(en, zh)}")
