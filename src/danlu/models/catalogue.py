"""Finding a base model by name: embedded, a local folder, or a hub repository."""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from danlu.bundled import FOLDER
from danlu.errors import ModelError, UnknownNameError

EMBEDDED = {"danlu/tiny": FOLDER / "tiny"}
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "LICENSE*", "README.md"]


@dataclass(frozen=True)
class BaseModel:
    """A base model on this machine."""

    name: str
    folder: Path
    revision: str | None
    """Commit of a hub repository; None for folders."""
    licence: str | None
    """As its model card states it; None when it does not."""


def find_base_model(name: str, *, needs_weights: bool = True) -> BaseModel:
    """Return the base model `name` (`danlu/tiny`, a folder, or `organisation/model[@revision]`), downloading if needed.

    Without `needs_weights` only the small files of a hub repository are fetched: configuration and tokenizer.

    Raises:
        UnknownNameError: nothing of that name exists.
        ModelError: the hub cannot be reached or refuses.
    """
    if name in EMBEDDED:
        return BaseModel(name, EMBEDDED[name], None, "apache-2.0")
    folder = Path(os.path.expanduser(name))
    if os.path.isdir(folder):
        return BaseModel(name, folder.resolve(), None, _licence(folder))
    if os.path.isfile(folder):
        raise ModelError(
            f"{name} is a file", why="a base model is a folder with config.json, tokenizer and safetensors", fix=f"give its folder: {folder.parent}"
        )
    repository, _, revision = name.partition("@")
    if name.startswith(("/", ".", "~")) or repository.count("/") != 1 or repository.startswith("danlu/"):
        near = get_close_matches(name, EMBEDDED, n=1, cutoff=0.5)
        raise UnknownNameError(
            f"unknown base model {name!r}",
            why="it is neither an embedded model, nor a folder on this machine, nor a hub name like Qwen/Qwen3-0.6B",
            fix=f"did you mean {near[0]}?" if near else "check the spelling or the path; danlu/tiny is always there",
        )
    return _download(name, repository, revision or None, HUB_FILES if needs_weights else [p for p in HUB_FILES if p != "*.safetensors"])


def _download(name: str, repository: str, revision: str | None, patterns: list[str]) -> BaseModel:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise UnknownNameError(
            f"the hub has no model {name!r}", why=str(error).strip().splitlines()[0], fix="check the spelling, or log in if the model is gated"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{name} could not be downloaded",
            why=str(error).strip().splitlines()[0],
            fix="connect to the network, or give the folder of a copy; danlu/tiny needs no network",
        ) from error
    return BaseModel(name, folder, folder.name, _licence(folder))


def _licence(folder: Path) -> str | None:
    card = folder / "README.md"
    if not card.is_file():
        return None
    for line in card.read_text(encoding="utf-8", errors="replace").splitlines()[:40]:
        if line.startswith("license:"):
            return line.removeprefix("license:").strip()
    return None
