"""danlu chat."""

import sys

import typer

from danlu.errors import DanluError, NoEffectError
from danlu.text import printable, say

HELP_EN = "/base and /tuned switch the model, /temperature 0.7, /top_p 0.9, /max 256, /reset, /quit"
HELP_ZH = "/base 与 /tuned 切换模型，/temperature 0.7，/top_p 0.9，/max 256，/reset 清空对话，/quit 退出"


def chat(
    name: str = typer.Argument("last", help="Run id, run folder, `last`, or a base model such as danlu/tiny."),
    message: str = typer.Option(None, "--message", help="Ask once and leave."),
    system: str = typer.Option(None, "--system", help="System message."),
    stacked: list[str] = typer.Option([], "--with", help="Another run over the same base model whose adapter is active too; may be given several times."),
    base: bool = typer.Option(False, "--base", help="Begin with the base model."),
    temperature: float = typer.Option(0.7, "--temperature", min=0.0, max=5.0, help="0 always takes the likeliest token."),
    top_p: float = typer.Option(0.9, "--top-p", min=0.01, max=1.0, help="Draw from the likeliest tokens that together have this probability."),
    max_tokens: int = typer.Option(256, "--max-tokens", min=1, help="Longest answer in tokens."),
    seed: int = typer.Option(None, "--seed", help="Draw the same answer again."),
    as_json: bool = typer.Option(False, "--json", help="With --message: print model, message and answer as JSON."),
) -> None:
    """Talk to a finished run, switching between base and tuned model."""
    from danlu.services.chat import ChatOptions, ChatSession

    if as_json and message is None:
        raise NoEffectError("--json needs --message", why="a conversation is for people", fix='danlu chat RUN --message "..." --json')
    session = ChatSession(name, system=system, stacked=stacked)
    options = ChatOptions("tuned" if session.has_tuned and not base else "base", temperature, top_p, max_tokens, seed)
    if message is not None and as_json:
        from danlu.cli.main import json_out

        json_out({"model": options.model, "message": message, "answer": "".join(session.ask(message, options))})
        return
    if message is not None:
        _answer(session, message, options)
        return
    typer.echo(say(HELP_EN, HELP_ZH))
    while True:
        try:
            text = input(f"{options.model}> ").strip()
        except EOFError:
            typer.echo()  # the shell's prompt starts on a line of its own
            return
        if text.startswith("/"):
            if text in ("/quit", "/exit"):
                return
            typer.echo(_command(text, session, options))
        elif text:
            try:
                _answer(session, text, options)
            except DanluError as error:  # the conversation goes on
                typer.echo(str(error), err=True)


def _answer(session: object, text: str, options: object) -> None:
    for piece in session.ask(text, options):  # type: ignore[attr-defined]
        sys.stdout.write(printable(piece))
        sys.stdout.flush()
    sys.stdout.write("\n")


def _command(text: str, session: object, options: object) -> str:
    name, _, value = text[1:].partition(" ")
    if name == "tuned" and not session.has_tuned:  # type: ignore[attr-defined]
        return say("this is a base model; there is no tuned one", "这是基座模型，没有微调后的模型")
    if name in ("base", "tuned"):
        options.model = name  # type: ignore[attr-defined]
        return name
    if name == "reset":
        session.reset()  # type: ignore[attr-defined]
        return say("conversation cleared", "对话已清空")
    limits = {"temperature": ("temperature", float, 0.0, 5.0), "top_p": ("top_p", float, 0.01, 1.0), "max": ("max_new_tokens", int, 1, 100_000)}
    if name in limits:
        field, kind, low, high = limits[name]
        try:
            number = kind(value)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            return say(f"{name} takes a number from {low} to {high}", f"{name} 的取值范围是 {low} 到 {high}")
        setattr(options, field, number)
        return f"{name} = {number}"
    return say(HELP_EN, HELP_ZH)
