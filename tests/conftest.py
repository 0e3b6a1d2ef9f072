"""What every test stands on: no network, a home folder of its own, and the way to the real data sets."""

import ipaddress
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).parent.parent
SHARED_DATA = Path(os.environ.get("DANLU_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))

FOR_TESTS = ("DANLU_AXE", "DANLU_FUZZ_EXAMPLES", "DANLU_SCREENSHOTS", "DANLU_SHARED_DATA")
for _name in [name for name in os.environ if name.startswith("DANLU_") and name not in FOR_TESTS]:
    del os.environ[_name]  # what somebody has set for a studio of their own

# Read by huggingface_hub when it is imported, in this process and in the ones that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Hypothesis measures no time, which a busy machine would spoil, and draws the same examples in every session: what fails, fails for everybody.
settings.register_profile("danlu", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("danlu")


def _is_local(address: Any) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket
    host = str(address[0])
    if host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


class _LocalSocket(socket.socket):
    """A socket that reaches this machine only, so that no test depends on the network without anyone noticing."""

    def connect(self, address: Any) -> None:
        if not _is_local(address):
            raise AssertionError(f"a test tried to reach {address}; tests use this machine only")
        super().connect(address)

    def connect_ex(self, address: Any) -> int:
        if not _is_local(address):
            raise AssertionError(f"a test tried to reach {address}; tests use this machine only")
        return super().connect_ex(address)


socket.socket = _LocalSocket  # type: ignore[misc]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker("shared")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device; this machine has none")


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the runs of the tests out of the user's home folder."""
    monkeypatch.setenv("DANLU_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Let a test draw the same numbers in whatever order the tests run; those of `random` and NumPy are seeded for each by pytest-randomly."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def still_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no window of a limit of requests turn while the test counts: at a turn one more is let through."""
    from limits.storage import memory

    now = time.time()
    monkeypatch.setattr(memory, "time", SimpleNamespace(time=lambda: now))


@pytest.fixture
def small_file_limit() -> Iterator[None]:
    """Let no file of this process grow beyond 4 KiB: real write errors, short writes included."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root folder of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets that are kept beside the checkout and never in it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data sets at {SHARED_DATA} (set DANLU_SHARED_DATA to their folder)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small random Qwen3 model with the tokenizer of danlu/tiny."""
    from models import write_model

    return write_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 rows in the alpaca format whose answers follow from the questions, one row that is dropped and one duplicate."""
    import orjson

    rows = [{"instruction": f"Which colour has door {n}?", "output": f"Door {n} is {('red', 'green', 'blue')[n % 3]}."} for n in range(60)]
    path = tmp_path_factory.mktemp("rows") / "doors.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in [*rows, {"instruction": "Which colour?", "output": ""}, rows[7]]))
    return path


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, small_model: Path, rows_file: Path) -> Path:
    """Folder of a finished LoRA run of a few steps on the small model. Copy it before you change anything in it."""
    from danlu.recipe.load import load_recipe
    from danlu.services.runs import run
    from models import recipe_values

    folder = tmp_path_factory.mktemp("runs") / "doors"
    run(load_recipe(values=recipe_values(small_model, rows_file)), run_dir=folder)
    return folder
