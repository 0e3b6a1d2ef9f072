"""Barriers in a page, as axe-core finds them."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"


@cache
def _program() -> str:
    """axe-core; without it the test is skipped, except where DANLU_AXE says that it has to be there, as on the build server."""
    path = Path(os.environ.get("DANLU_AXE", HERE))
    if not path.is_file():
        told = f"axe-core is not installed ({path}; npm ci --prefix tests/web)"
        (pytest.fail if "DANLU_AXE" in os.environ else pytest.skip)(told)
    return path.read_text("utf-8")


def barriers(page: Any) -> list[str]:
    """Serious and critical findings on what the page shows now, with the first place of each."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(_program())
    result = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [f"{one['id']}: {one['nodes'][0]['html'][:160]}" for one in result["violations"] if one["impact"] in ("serious", "critical")]
