"""Every dataset format: which rows it recognises and what it makes of them."""

from typing import Any, cast

import pytest

from danlu.data.detect import choose_format
from danlu.data.examples import Format, RowError
from danlu.recipe.base import FORMATS

USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}
QA = [USER, ASSISTANT]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}

ROWS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("alpaca", {"instruction": "q", "input": "", "output": "a"}, {"messages": QA}),
    ("alpaca", {"instruction": "q", "input": None, "response": "a"}, {"messages": QA}),
    ("alpaca", {"instruction": "q", "input": "more", "output": "a"}, {"messages": [{"role": "user", "content": "q\nmore"}, ASSISTANT]}),
    ("alpaca", {"instruction": "q", "output": "a", "system": "s"}, {"messages": [SYSTEM, *QA]}),
    ("alpaca", {"instruction": "q", "output": "a", "history": [["q", "a"]]}, {"messages": [*QA, *QA]}),
    ("alpaca", {"instruction": "q", "instances": [{"input": "", "output": "a"}]}, {"messages": QA}),
    ("alpaca", {"指令": "q", "输入": "", "输出": "a"}, {"messages": QA}),
    ("alpaca", {"instruction": "q", "input": "", "output": 7}, {"messages": [USER, {"role": "assistant", "content": "7"}], "fixes": ["a number kept as text"]}),
    ("messages", {"messages": QA}, {"messages": QA}),
    ("messages", {"conversations": QA}, {"messages": QA}),
    ("messages", {"messages": '[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]'}, {"messages": QA}),
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": [{"type": "text", "value": "a"}]}]},
        {"messages": QA},
    ),
    (
        "messages",
        {"messages": [USER | {"loss_weight": 0.0}, ASSISTANT | {"loss_weight": 1.0}, USER, ASSISTANT | {"loss_weight": 0}]},
        {"messages": [*QA, *QA], "train_on": [False, True, False, False]},
    ),
    ("messages", {"messages": QA, "tools": [{"name": "f", "parameters": {}}]}, {"messages": QA, "tools": [TOOL]}),
    ("messages", {"messages": QA, "tools": '[{"type": "function", "function": {"name": "f", "parameters": {}}}]'}, {"messages": QA, "tools": [TOOL]}),
    (
        "messages",
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [TOOL]}, {"role": "tool", "tool_call_id": "1", "content": "r"}, ASSISTANT]},
        {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [TOOL]}, {"role": "tool", "content": "r", "tool_call_id": "1"}, ASSISTANT]},
    ),
    ("messages", {"messages": [{"role": "Human", "content": "q"}, ASSISTANT]}, {"messages": QA, "fixes": ["role 'Human' read as 'user'"]}),
    ("sharegpt", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, {"messages": QA}),
    ("sharegpt", {"conversation": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}], "system": "s"}, {"messages": [SYSTEM, *QA]}),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                {"from": "observation", "value": "r"},
                {"from": "gpt", "value": "a"},
            ],
            "tools": '[{"name": "f", "parameters": {}}]',
        },
        {
            "messages": [
                USER,
                {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]},
                {"role": "tool", "content": "r"},
                ASSISTANT,
            ],
            "tools": [TOOL],
        },
    ),
    ("prompt_completion", {"prompt": "q", "completion": "a"}, {"messages": QA}),
    ("prompt_completion", {"Question": "q", "Answer": "a", "id": 1}, {"messages": QA}),
    ("prompt_completion", {"input": "q", "output": "a"}, {"messages": QA}),
    ("prompt_completion", {"query": "q", "response": "a", "system": "s"}, {"messages": [SYSTEM, *QA]}),
    ("prompt_completion", {"问题": "q", "答案": "a"}, {"messages": QA}),
    ("prompt_completion", {"text": "q", "label": "a"}, {"messages": QA}),
    ("prompt_completion", {"prompt": [SYSTEM, USER], "completion": [ASSISTANT]}, {"messages": [SYSTEM, *QA]}),
    (
        "prompt_completion",
        {"prompt": "q", "completion": {"x": 1}},
        {"messages": [USER, {"role": "assistant", "content": '{"x":1}'}], "fixes": ["a JSON value kept as text"]},
    ),
    ("qa_text", {"text": "问：q\n答：a"}, {"messages": QA}),
    ("qa_text", {"text": "User: q\nAssistant: a\nUser: q\nAssistant: a"}, {"messages": [*QA, *QA]}),
    ("text", {"text": "q"}, {"text": "q"}),
    ("text", {"content": "q", "source": "x"}, {"text": "q"}),
    ("labelled", {"prompt": "q", "completion": "a", "label": True}, {"messages": [USER], "completion": [ASSISTANT], "label": True}),
    ("labelled", {"question": "q", "answer": "a", "label": "False"}, {"messages": [USER], "completion": [ASSISTANT], "label": False}),
    ("labelled", {"messages": QA, "kto_tag": False, "system": "s"}, {"messages": [SYSTEM, USER], "completion": [ASSISTANT], "label": False}),
    ("prompt", {"prompt": "q", "answer": 7, "level": 2}, {"messages": [USER], "answer": "7", "columns": {"level": 2}}),
    ("prompt", {"prompt": [SYSTEM, USER]}, {"messages": [SYSTEM, USER], "answer": None, "columns": {}}),
    (
        "preference",
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"messages": [USER], "chosen": [ASSISTANT], "rejected": [{"role": "assistant", "content": "b"}]},
    ),
    (
        "preference",
        {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}},
        {"messages": [USER], "chosen": [ASSISTANT], "rejected": [{"role": "assistant", "content": "b"}]},
    ),
    (
        "preference",
        {"prompt": "q", "chosen": QA, "rejected": [USER, {"role": "assistant", "content": "b"}]},
        {"messages": [USER], "chosen": [ASSISTANT], "rejected": [{"role": "assistant", "content": "b"}]},
    ),
    (
        "preference",
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        {"messages": [USER], "chosen": [ASSISTANT], "rejected": [{"role": "assistant", "content": "b"}]},
    ),
]


@pytest.mark.parametrize(("name", "row", "example"), ROWS)
def test_a_row_is_recognised_and_read(name: str, row: dict[str, Any], example: dict[str, Any], tmp_path: Any) -> None:
    chosen = choose_format("auto", [row], tmp_path)

    assert chosen.type == name
    assert chosen.to_example(row) == example


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("alpaca", {"instruction": "q"}, "no column 'output'"),
        ("alpaca", {"output": "q"}, "no column 'instruction'"),
        ("alpaca", {"instruction": "q", "output": "a", "history": ["x"]}, "`history` is not a list"),
        ("alpaca", {"instruction": "q", "instances": [1, 2]}, "`instances` is not a list with one entry"),
        ("messages", {"text": "q"}, "no column 'messages'"),
        ("messages", {"messages": []}, "not a list with at least one message"),
        ("messages", {"messages": "hello"}, "nor JSON text"),
        ("messages", {"messages": ["hello"]}, "not a mapping of role and content"),
        ("messages", {"messages": [{"role": "narrator", "content": "q"}]}, "unknown role 'narrator'"),
        ("messages", {"messages": [{"role": ["user"], "content": "q"}]}, "unknown role"),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "part of type 'image_url'"),
        ("messages", {"messages": [USER, ASSISTANT | {"loss_weight": "high"}]}, "loss weight is 'high'"),
        ("messages", {"messages": [USER, ASSISTANT | {"loss_weight": 1e9}]}, "a loss weight is 1e.09, more than 100"),
        ("messages", {"messages": QA, "label": False}, "undesirable"),
        ("messages", {"messages": QA, "tools": "nonsense"}, "`tools` is not JSON"),
        ("sharegpt", {"conversations": [{"from": "narrator", "value": "q"}]}, "unknown role 'narrator'"),
        ("sharegpt", {"conversations": [{"from": "function_call", "value": "call me"}]}, "not JSON"),
        ("sharegpt", {"conversations": [{"from": "function_call", "value": "{}"}]}, "no name"),
        ("prompt_completion", {"prompt": "q"}, "no prompt or no completion"),
        ("qa_text", {"text": "nothing marked"}, "no question or answer marker"),
        ("qa_text", {"text": "hello\n问：q\n答：a"}, "text before the first question"),
        ("text", {"x": 1}, "no column 'text'"),
        ("labelled", {"prompt": "q", "completion": "a"}, "no column 'label'"),
        ("labelled", {"prompt": "q", "completion": "a", "label": "maybe"}, "a label is 'maybe', not true or false"),
        ("labelled", {"messages": [USER], "label": True}, "an answer is missing"),
        ("prompt", {"answer": "a"}, "no column 'prompt'"),
        ("prompt", {"prompt": None}, "empty prompt"),
        ("preference", {"prompt": "q", "chosen": "a"}, "no column 'rejected'"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": None}, "an answer is missing"),
        ("preference", {"chosen": "a", "rejected": "b"}, "share no beginning"),
        ("preference", {"chosen": QA, "rejected": QA}, "the same"),
    ],
)
def test_a_row_that_does_not_fit_says_why(name: str, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        cast("Format", FORMATS.parse(name)).to_example(row)


@pytest.mark.parametrize("name", list(FORMATS))
def test_no_format_recognises_nothing(name: str) -> None:
    chosen = cast("Format", FORMATS.parse(name))

    assert chosen.detect([]) == 0
    assert chosen.detect([{"unrelated": 1}]) == 0
    assert chosen.makes in ("messages", "text", "preference", "labelled", "prompt")


def lines(text: str) -> Any:
    return iter(list(enumerate(text.split("\n"), 1)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("问：一\n答：二\n问：三\n答：四", [(1, "问：一\n答：二"), (3, "问：三\n答：四")]),
        ("Q: 1\nA: 2\n\nmore of 2\nQ: 3\nA: 4", [(1, "Q: 1\nA: 2\n\nmore of 2"), (5, "Q: 3\nA: 4")]),
        ("问题1：一\n回答1：二\n\n问题2：三\n回答2：四", [(1, "问题1：一\n回答1：二\n"), (4, "问题2：三\n回答2：四")]),
        (
            "User: 1\nAssistant: 2\nUser: 3\nAssistant: 4\n\nUser: 5\nAssistant: 6",
            [(1, "User: 1\nAssistant: 2\nUser: 3\nAssistant: 4\n"), (6, "User: 5\nAssistant: 6")],
        ),
        ("System: s\nUser: 1\nAssistant: 2", [(1, "System: s\nUser: 1\nAssistant: 2")]),
        ("Q: 1\nQ: 2\nA: 3", [(1, "Q: 1"), (2, "Q: 2\nA: 3")]),
        ("问：一 答：二\n问：三 答：四", [(1, "问：一 答：二"), (2, "问：三 答：四")]),
    ],
)
def test_marked_lines_are_grouped_into_questions_and_answers(text: str, expected: list[tuple[int, str]]) -> None:
    grouped = cast("Any", FORMATS.parse("qa_text")).group_lines(lines(text))

    assert [(line, row["text"]) for line, row in grouped] == expected


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("问：一 答：二", [("user", "一"), ("assistant", "二")]),
        ("【问题】：一\n【答案】：二\n第二行", [("user", "一"), ("assistant", "二\n第二行")]),
        ("1. 问: 一\n答: 二", [("user", "一"), ("assistant", "二")]),
        ("System: s\nUSER: 1\nassistant: 2", [("system", "s"), ("user", "1"), ("assistant", "2")]),
    ],
)
def test_marked_text_becomes_turns(text: str, messages: list[tuple[str, str]]) -> None:
    example = cast("Format", FORMATS.parse("qa_text")).to_example({"text": text})

    assert [(m["role"], m["content"]) for m in example["messages"]] == messages


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("one\ntwo", ["one", "two"]),
        ("one\ntwo\n\n", ["one", "two"]),
        ("a\nb\n\nc", ["a\nb\n\nc"]),
        ("a\n\n\nb", ["a", "b"]),
        ("x" * 2000 + "\n\nnext", ["x" * 2000, "next"]),
    ],
)
def test_a_text_file_is_cut_into_documents(text: str, documents: list[str]) -> None:
    grouped = cast("Any", FORMATS.parse("text")).group_lines(lines(text))

    assert [row["text"] for _, row in grouped] == documents
