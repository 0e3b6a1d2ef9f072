"""Facts about this machine and the files on it: versions, devices, memory, checksums."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import danlu


def environment() -> dict[str, Any]:
    """Versions and hardware, for the record."""
    from danlu.models.device import device

    return {
        "danlu": danlu.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "num_cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "device": device(),
        "packages": {name: _version(name) for name in ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "safetensors", "numpy")},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def weights_digest(folder: Path) -> str:
    """SHA-256 over the weight files of a model folder, in name order."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
