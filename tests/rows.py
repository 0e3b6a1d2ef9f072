"""Small rows of a data file for every kind of example an objective can need: what follows can be learnt in a few steps."""

from pathlib import Path
from random import Random
from typing import Any

COLOURS = ("red", "green", "blue")


def question(n: int) -> str:
    return f"Which colour has door {n}?"


def right(n: int) -> str:
    return f"Door {n} is {COLOURS[n % 3]}."


def wrong(n: int) -> str:
    return f"Nobody knows {n}, sorry."


def spelling(n: int) -> str:
    """Letters that nearly equal those of no other n: prompts that differ in a number only would be kept in one split."""
    return "".join(Random(n).choices("abcdefghijklmnop", k=30))


ROWS_OF: dict[str, Any] = {
    "messages": lambda n: {"messages": [{"role": "user", "content": question(n)}, {"role": "assistant", "content": right(n)}]},
    "text": lambda n: {"text": f"{question(n)} {right(n)}"},
    "preference": lambda n: {"prompt": question(n), "chosen": right(n), "rejected": wrong(n)},
    "labelled": lambda n: {"prompt": question(n), "completion": right(n) if n % 2 else wrong(n), "label": bool(n % 2)},
    "prompt": lambda n: {"prompt": f"Spell {spelling(n)}.", "answer": right(n), "colour": COLOURS[n % 3]},
}
"""One row of a file by the kind of example (`ObjectiveConfig.needs`)."""


def rows(needs: str, count: int) -> list[dict[str, Any]]:
    """Rows of a data file that an objective of that need can learn from."""
    return [ROWS_OF[needs](n) for n in range(count)]


def write_rows(path: Path, needs: str, count: int) -> Path:
    """The same as a JSONL file."""
    import orjson

    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows(needs, count)))
    return path
