"""The suite of every dataset format, also of those that a plug-in brings: no row whatever makes it fail in its own way."""

from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.data.clean import clean_example
from danlu.data.examples import ROLES, Format, RowError
from danlu.recipe.base import FORMATS

KEYS = [
    "instruction",
    "input",
    "output",
    "response",
    "system",
    "history",
    "instances",
    "messages",
    "conversations",
    "tools",
    "role",
    "content",
    "type",
    "text",
    "value",
    "from",
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "question",
    "answer",
    "label",
    "loss_weight",
    "tool_calls",
    "name",
    "arguments",
]
WORDS = [
    "",
    " ",
    "user",
    "assistant",
    "human",
    "gpt",
    "function_call",
    "tool",
    "system",
    "text",
    "[",
    "[{}]",
    '{"name": "f"}',
    "问：甲\n答：乙",
    "\n\nHuman: a\n\nAssistant: b",
    "\x00",
    "1",
]
LEAF = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.sampled_from(WORDS) | st.text(max_size=5)
VALUE = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4), max_leaves=12)
TURN = st.fixed_dictionaries({"role": LEAF, "content": VALUE}) | st.fixed_dictionaries({"from": LEAF, "value": VALUE})
ROW = st.dictionaries(st.sampled_from(KEYS), VALUE | st.lists(TURN, max_size=3), max_size=6)


@pytest.mark.parametrize("name", list(FORMATS))
@settings(max_examples=150)
@given(row=ROW)
def test_any_row_becomes_an_example_or_a_reason(name: str, row: dict[str, Any]) -> None:
    chosen = cast("Format", FORMATS.parse(name))

    assert 0 <= chosen.detect([row]) <= 1
    assert isinstance(chosen.columns(list(row)), set)
    try:
        example = clean_example(chosen.to_example(row), [])
    except RowError as error:
        assert error.reason
        return
    assert orjson.dumps(example)
    if chosen.makes == "text":
        assert example["text"].strip()
        return
    for key in ("messages", "chosen", "rejected", "completion"):
        for message in example.get(key, ()):
            assert message["role"] in ROLES and isinstance(message["content"], str)
            assert message["content"].strip() or message.get("tool_calls")
    last = (example.get("chosen") or example.get("completion") or example["messages"])[-1]["role"]
    assert last in ("user", "tool") if chosen.makes == "prompt" else last == "assistant"


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_column_can_be_named(name: str) -> None:
    config = FORMATS.parse(name)

    for field, about in type(config).model_fields.items():
        assert about.description or field == "type", f"{name}.{field} has no docstring"
