"""`danlu studio` and `danlu worker` as processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from danlu.cli.companion import companion_of


class Studio:
    """A server started as people start it."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.log = (home.parent / f"{home.name}.log").open("ab")
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "danlu", "studio", "--no-open", "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=os.environ | {"DANLU_HOME": str(home), "DANLU_LANG": "en"},
            text=True,
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        self.seconds = time.perf_counter() - began
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        self.cpu_seconds = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    @property
    def url(self) -> str:
        return re.findall(r"http://[\d.:]+", self.said)[0]

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()
        return code


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    left = companion_of(tmp_path / "home")
    if left is not None:
        os.kill(left, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_the_server_is_ready_soon_small_and_without_torch(home: Path) -> None:
    studio = Studio(home, "--no-worker")
    try:
        for _ in range(20):
            assert studio.get("/api/v1/projects").status_code == 200
        rss = int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{studio.process.pid}/status").read_text())[0]) * 1024
        mapped = Path(f"/proc/{studio.process.pid}/maps").read_text()
    finally:
        code = studio.end()

    print(f"ready after {studio.seconds:.2f} s, {studio.cpu_seconds:.2f} s of them computing, {rss / 1e6:.0f} MB")
    assert studio.cpu_seconds < 8  # the goal is 3 s on an idle machine; how long a busy one lets it wait says nothing
    assert rss < 200e6
    assert "libtorch" not in mapped
    assert code == 0


def test_a_second_server_refuses_a_home_and_a_port_that_are_taken(home: Path) -> None:
    def second(home: Path, port: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "danlu", "studio", "--no-open", "--no-worker", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"DANLU_HOME": str(home), "DANLU_LANG": "en"})
        return done.returncode, done.stderr

    studio = Studio(home, "--no-worker")
    port = studio.url.rpartition(":")[2]
    try:
        (code, said), (code_of_port, said_of_port) = second(home, "0"), second(home.parent / "other", port)
        assert studio.get("/healthz").status_code == 200
    finally:
        studio.end()

    assert (code, "another studio works on" in said, f"use the one that runs: {studio.url}" in said) == (7, True, True)
    assert (code_of_port, f"cannot listen on 127.0.0.1, port {port}" in said_of_port) == (9, True)


def test_a_killed_server_leaves_its_worker_and_the_next_one_takes_it_over(home: Path) -> None:
    studio = Studio(home)
    wait_until(lambda: studio.get("/readyz").status_code == 200)
    first = companion_of(home)
    assert first is not None
    studio.end(signal.SIGKILL)
    assert is_alive(first)

    again = Studio(home)
    try:
        os.kill(first, signal.SIGKILL)  # the new server's worker has waited for that
        wait_until(lambda: companion_of(home) not in (None, first))
        second = companion_of(home)
    finally:
        code = again.end()

    assert second is not None and not is_alive(second)
    assert code == 0


def test_the_server_and_the_worker_import_no_heavy_package() -> None:
    modules = "danlu.api.app, danlu.api.server, danlu.worker.supervisor, danlu.worker.housekeeping"
    code = f"import sys, json, {modules}; danlu.api.app.describe(); print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    assert [name for name in ("torch", "transformers", "peft", "pandas", "scipy", "matplotlib") if name in loaded] == []
