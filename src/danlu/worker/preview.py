"""What a run will take, told by a process of its own: `python -m danlu.worker.preview` reads a question on stdin and answers on stdout.

Tokenizers and chat templates come from users' model folders; here they may hang or eat memory without harm to the server.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import Any

import orjson

from danlu.errors import DanluError

MAX_MEMORY_BYTES = 8 << 30
"""What this process may take. It says nothing of what a run can: that is told with the question."""


def main() -> int:
    """Answer the question on stdin."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    lines = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        answer = preview(orjson.loads(sys.stdin.buffer.read()))
    except DanluError as error:
        answer = {"error": error.to_dict()}
    lines.write(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))
    lines.close()
    return 0


def preview(question: dict[str, Any]) -> dict[str, Any]:
    """The resolved recipe, its reasons and its forecast.

    Raises:
        DanluError: the data or the model cannot be read.
    """
    from danlu.recipe.load import validate
    from danlu.services.forecasts import forecast_run, recommend_run

    names, paths = question["recipe"], question["paths"]
    written = {**names, "dataset": paths.get(names["dataset"], names["dataset"]), "base_model": paths.get(names["base_model"], names["base_model"])}
    recipe = validate(written, source="recipe")
    place = {"price_per_hour": question["price_per_hour"], "memory_bytes": question["memory_bytes"]}
    found = recommend_run(recipe, goal=question["goal"], **place) if question["goal"] else forecast_run(recipe, **place)
    told = found.to_dict()
    told["recipe"] |= {name: names[name] for name in ("dataset", "base_model")}
    return told


if __name__ == "__main__":
    sys.exit(main())
