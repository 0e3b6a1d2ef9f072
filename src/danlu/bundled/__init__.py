"""What comes with Danlu: the model `danlu/tiny`, example datasets, and the general sets. Names start with `danlu/`."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent
PREFIX = "danlu/"


def example_names() -> list[str]:
    """Names of the bundled example datasets, such as `danlu/zhangjiajie`."""
    return [PREFIX + path.stem for path in sorted((FOLDER / "examples").glob("*.jsonl"))]


def dataset_path(name: str) -> Path | None:
    """File of a bundled dataset (`danlu/zhangjiajie`, `general`), or None when there is none of that name."""
    stem = name.removeprefix(PREFIX)
    candidates = [FOLDER / "examples" / f"{stem}.jsonl", FOLDER / f"{stem}.jsonl"]
    return next((path for path in candidates if "/" not in stem and os.path.isfile(path)), None)


def recipe_path(name: str) -> Path | None:
    """Recipe of a bundled example (`danlu/zhangjiajie`), or None."""
    stem = name.removeprefix(PREFIX)
    path = FOLDER / "examples" / f"{stem}.yaml"
    return path if name.startswith(PREFIX) and "/" not in stem and os.path.isfile(path) else None
