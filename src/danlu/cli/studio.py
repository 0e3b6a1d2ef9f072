"""danlu studio, danlu worker."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from danlu.text import say

PORT = 8700
PRIVATE = 0o077
"""What server and worker write is for nobody else on this machine: data, models, logs of jobs, the database."""


def studio(
    host: str = typer.Option("127.0.0.1", "--host", help="Address to listen on; others than this machine's own need users."),
    port: int = typer.Option(PORT, "--port", "-p", min=0, max=65535, help="Port to listen on; 0 takes a free one."),
    open_page: bool = typer.Option(True, "--open/--no-open", help="Show the studio in the browser when it is ready."),
    worker: bool = typer.Option(True, "--worker/--no-worker", help="Also start a worker on this home, as a process of its own."),
) -> None:
    """Start the studio: the server with its REST interface, and a worker that carries out the queue.

    Stop it with Ctrl-C. Jobs that run then go on, and are found again when it is started the next time.
    """
    from contextlib import ExitStack

    from danlu import logs
    from danlu.api.app import create_app
    from danlu.api.security import actor_now
    from danlu.api.server import listen, only_server, serve
    from danlu.cli.companion import Companion
    from danlu.services.platform import sessions
    from danlu.services.platform.platform import Platform
    from danlu.settings import Settings
    from danlu.web import mount
    from danlu.worker.housekeeping import Housekeeper

    os.umask(PRIVATE)
    settings = Settings.from_environment()
    logs.configure(settings.log_format, settings.log_level)
    with ExitStack() as held:
        note = held.enter_context(only_server(settings.home))
        platform = Platform.open(settings)
        held.callback(platform.close)
        app = create_app(platform, host=host)
        mount(app, platform, actor_now)
        bound = held.enter_context(listen(host, port))
        if worker:
            held.enter_context(Companion(settings.home).running())
        watch = Housekeeper(platform, only=("watch",))
        watch.start()
        held.callback(watch.stop)
        url = _url(host, bound.getsockname()[1])
        note(url)
        token = sessions.first_admin_token(platform) if app.state.security.needs_users() else None
        serve(app, bound, on_ready=lambda: _welcome(url, settings.home, token, is_shown=open_page and host in ("127.0.0.1", "localhost")))
    typer.echo(say("The studio has stopped.", "工作室已停止。"), err=True)


def worker(
    beside: int = typer.Option(0, "--beside", hidden=True, help="Process of the server that starts it."),
) -> None:
    """Carry out the queue of this home, without a server. Several homes may share one database; each has its own worker.

    Stop it with Ctrl-C. Jobs that run then go on, and are found again by the next worker.
    """
    import signal
    import threading

    from danlu import logs
    from danlu.cli.companion import note
    from danlu.errors import RunBusyError
    from danlu.services.platform.platform import Platform
    from danlu.settings import Settings
    from danlu.worker.housekeeping import Housekeeper
    from danlu.worker.supervisor import Supervisor

    os.umask(PRIVATE)
    settings = Settings.from_environment()
    logs.configure(settings.log_format, settings.log_level)
    is_stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: is_stopping.set())
    platform = Platform.open(settings)
    housekeeper = Housekeeper(platform)

    def stopping() -> bool:
        if not housekeeper.is_alive() and not is_stopping.is_set():
            housekeeper.start()  # asked for the first time: the lock of the home is ours
            if beside:
                note(settings.home)
            typer.echo(say(f"The worker of {settings.home} is ready.", f"{settings.home} 的执行进程已就绪。"), err=True)
        return is_stopping.is_set()

    supervisor = Supervisor.of(platform)
    while True:
        try:
            supervisor.run(stopping)
            break
        except RunBusyError:
            if not beside:
                raise
        if is_stopping.wait(1.0) or os.getppid() != beside:
            break  # it was told to stop, or its server is gone, before the worker that a killed server left behind
    if housekeeper.is_alive():
        housekeeper.stop()
    platform.close()


def _url(host: str, port: int) -> str:
    """The address to type into a browser on this machine."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "localhost") else "::1" if host == "::" else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _welcome(url: str, home: Path, token: str | None, *, is_shown: bool) -> None:
    typer.echo(say(f"Danlu studio: {url} (home: {home}; stop with Ctrl-C)", f"丹炉工作室：{url}（主目录：{home}；按 Ctrl-C 停止）"))
    if token is not None:
        typer.echo(
            say(f"There are no users yet. This token makes the first administrator, once: {token}", f"还没有用户。用这个一次性令牌创建第一位管理员：{token}")
        )
    if is_shown:
        import threading
        import webbrowser

        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
