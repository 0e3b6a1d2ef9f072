"""Is this machine ready? Python, packages, torch and its devices, memory, disk, home folder, database; and what each extra would add.

It changes nothing: no table is made or upgraded, no package installed. torch is tried in a process of its own, since a build that does
not fit the machine can take its process down.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import danlu
from danlu.errors import DanluError, MissingExtraError
from danlu.models.headroom import available_memory_bytes
from danlu.settings import Settings

State = Literal["ok", "warning", "failed"]
GIB = 2**30
LOW_DISK_BYTES = 2 * GIB
LOW_MEMORY_BYTES = 1 * GIB
TORCH_SECONDS = 120
TORCH = """
import json, torch
gpus = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads(), "gpus": [[gpu.name, gpu.total_memory] for gpu in gpus]}))
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    """What is there, in figures and names."""
    en: str = ""
    zh: str = ""
    """What it means where it is not as it should be."""
    fix: str = ""
    """What to do, as a command where there is one."""


@dataclass(frozen=True)
class Extra:
    """An optional part of Danlu, and what it is for."""

    name: str
    en: str
    zh: str
    missing: list[str] = field(default_factory=list)
    """Packages that it would install; empty where it is there."""

    @property
    def is_installed(self) -> bool:
        """Whether all of it is there."""
        return not self.missing


@dataclass(frozen=True)
class Examination:
    """What the doctor found."""

    checks: list[Check]
    extras: list[Extra]

    @property
    def is_ready(self) -> bool:
        """Whether nothing failed."""
        return all(check.state != "failed" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        from dataclasses import asdict

        extras = [asdict(extra) | {"is_installed": extra.is_installed} for extra in self.extras]
        return {"is_ready": self.is_ready, "checks": [asdict(check) for check in self.checks], "extras": extras}


STUDIO = (
    *("alembic", "anyio", "authlib", "fastapi", "httpx", "joserfc", "limits"),
    *("nicegui", "prometheus_client", "pwdlib", "sqlalchemy", "starlette", "uvicorn"),
)
EXTRAS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "train": (("huggingface_hub", "jinja2", "peft", "safetensors", "tokenizers", "torch", "transformers"), "training and chat", "训练与对话"),
    "eval": (("sacrebleu",), "BLEU and chrF in the proof", "评测中的 BLEU 与 chrF"),
    "quant": (("bitsandbytes",), "method qlora, optimiser adamw_8bit", "qlora 方法与 adamw_8bit 优化器"),
    "sweep": (("optuna",), "danlu sweep --optuna", "danlu sweep --optuna"),
    "studio": (STUDIO, "the studio: pages, queue, REST, Python API, accounts", "工作室：页面、队列、REST、Python 接口、账户"),
    "postgres": (("psycopg",), "the platform on PostgreSQL", "用 PostgreSQL 的平台"),
    "s3": (("fsspec", "s3fs"), "files of the platform on S3", "平台文件存放在 S3"),
    "gcs": (("fsspec", "gcsfs"), "files of the platform on Google Cloud Storage", "平台文件存放在 Google Cloud Storage"),
    "azure": (("adlfs", "fsspec"), "files of the platform on Azure", "平台文件存放在 Azure"),
    "tensorboard": (("tensorboard",), "runs followed in TensorBoard", "用 TensorBoard 跟踪运行"),
    "wandb": (("wandb",), "runs followed in Weights & Biases", "用 Weights & Biases 跟踪运行"),
    "mlflow": (("mlflow",), "runs followed in MLflow", "用 MLflow 跟踪运行"),
    "swanlab": (("swanlab",), "runs followed in SwanLab", "用 SwanLab 跟踪运行"),
}
"""Extras by name: what they import, and what they enable in English and Chinese; a test compares them with pyproject.toml."""


def examine(settings: Settings | None = None) -> Examination:
    """Look at everything; what is wrong is told, not raised."""
    settings = settings or Settings.from_environment()
    checks = [*_software(), *_hardware(), *_home(settings.home), *_database(settings)]
    extras = [Extra(name, en, zh, [module for module in modules if find_spec(module) is None]) for name, (modules, en, zh) in EXTRAS.items()]
    return Examination(checks, extras)


def _software() -> Iterator[Check]:
    yield Check("danlu", "ok", danlu.__version__)
    python = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Check("python", "ok", python)
    else:
        yield Check("python", "failed", python, "Danlu runs on 3.11 to 3.13", "需要 3.11 至 3.13", "python3.12 -m venv .venv")
    yield Check("system", "ok", f"{platform.system()} {platform.release()} {platform.machine()}")
    for name in ("numpy", "pydantic", "transformers", "peft", "sqlalchemy", "fastapi"):
        try:
            yield Check(name, "ok", version(name))
        except PackageNotFoundError:
            continue  # the extras say what is missing


def _hardware() -> Iterator[Check]:
    yield Check("processors", "ok", str(os.cpu_count()))
    total, available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), available_memory_bytes()
    shown = f"{available / GIB:.1f} of {total / GIB:.1f} GiB free"
    if available < LOW_MEMORY_BYTES:
        yield Check("memory", "warning", shown, "little is free: only small models fit", "可用内存很少：只放得下小模型", "close other programs")
    else:
        yield Check("memory", "ok", shown)
    yield from _torch()


def _torch() -> Iterator[Check]:
    import orjson

    fix = "pip install 'danlu[train]'"
    if find_spec("torch") is None:
        yield Check("torch", "warning", "-", "not installed: data can be looked at, nothing trained", "未安装：可以检查数据，但不能训练", fix)
        return
    try:
        done = subprocess.run([sys.executable, "-P", "-c", TORCH], capture_output=True, text=True, timeout=TORCH_SECONDS, stdin=subprocess.DEVNULL)
        found = orjson.loads(done.stdout) if done.returncode == 0 else None
        said = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
    except (subprocess.TimeoutExpired, ValueError) as error:
        found, said = None, type(error).__name__
    if found is None:
        yield Check("torch", "failed", said[:200], "installed, but it does not load here", "已安装，但在本机无法加载", "make venv TORCH=cpu (docs/install.md)")
        return
    yield Check("torch", "ok", f"{found['version']}, {found['threads']} threads")
    gpus = ", ".join(f"{name} {memory / GIB:.0f} GiB" for name, memory in found["gpus"])
    yield Check("gpu", "ok", gpus, "" if gpus else "none: training runs on the processors", "" if gpus else "没有 GPU：用 CPU 训练")


def _home(home: Path) -> Iterator[Check]:
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    fix = "choose another folder: DANLU_HOME=/path/with/room"
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".danlu-doctor-"):
            pass
        yield Check("home", "ok", str(home), "" if there == home else "not made yet", "" if there == home else "尚未创建")
    except OSError as error:
        yield Check("home", "failed", str(home), f"cannot be written: {error.strerror}", f"无法写入：{error.strerror}", fix)
    usage = shutil.disk_usage(there)
    shown = f"{usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB free"
    if usage.free < LOW_DISK_BYTES:
        yield Check("disk", "warning", shown, "little is free: a run needs some", "可用空间很少：运行需要空间", fix)
    else:
        yield Check("disk", "ok", shown)


def _database(settings: Settings) -> Iterator[Check]:
    if find_spec("sqlalchemy") is None or find_spec("alembic") is None:
        return  # the extra `studio` says so
    from danlu.store import schema
    from danlu.store.engine import Database

    try:
        database = Database(settings.database_url)
        if database.path is not None and not database.path.exists():
            yield Check("database", "ok", str(database.path), "not made yet", "尚未创建")
            return
        try:
            yield _revision(database.shown, schema.revision(database), schema.newest())
            if database.path is not None:
                schema.check(database.path)
        finally:
            database.close()
    except MissingExtraError as error:
        yield Check("database", "failed", "psycopg", "the driver that its address names is not installed", "缺少其地址所需的驱动", error.fix)
    except DanluError as error:
        yield Check("database", "failed", error.what, error.why, error.why, error.fix)


def _revision(where: str, current: str | None, newest: str | None) -> Check:
    if current == newest:
        return Check("database", "ok", f"{where}, {current}")
    en, zh = f"its tables are at {current}, this version's are {newest}", f"其表结构为 {current}，本版本为 {newest}"
    return Check("database", "warning", where, en, zh, "start `danlu studio`: it copies the database, then brings it up to date (docs/upgrading.md)")
