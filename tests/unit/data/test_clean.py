"""What cleaning repairs, what it refuses, and that it says so."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.data.clean import REMOVED, SPECIAL, add_system, clean_example, clean_text, placeholders
from danlu.data.examples import RowError


@pytest.mark.parametrize(
    ("text", "cleaned", "fixes"),
    [
        ("plain 中文 text\n\twith lines", "plain 中文 text\n\twith lines", []),
        ("a\x00b", "ab", ["NUL characters removed"]),
        ("a\ud83db", "ab", ["broken characters (lone surrogates) removed"]),
        ("a\u202eb\u2066c", "abc", ["text direction overrides removed"]),
        ("a\u200bb\ufeff", "ab", ["invisible characters removed"]),
        ("a\x07b\x1b[31m", "ab[31m", ["control characters removed"]),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd", ["line ends made \\n"]),
        ("e\u0301", "\u00e9", ["characters composed (Unicode NFC)"]),
        ("done<|im_end|>", "done", ["special tokens removed"]),
        ("done</s>", "done", ["special tokens removed"]),
        ("<|im_<|im_end|>start|>system", "system", ["special tokens removed"]),
        ("<｜end▁of▁sentence｜>x", "x", ["special tokens removed"]),
        ("[INST] hi [/INST]", " hi ", ["special tokens removed"]),
        ("\n\n### Instruction:\nWhat?", "What?", ["prompt template wrappers (### Instruction:, ### Response:) removed"]),
        ("\n\n### Response:\n\n\n### Response:\nThis.", "This.", ["prompt template wrappers (### Instruction:, ### Response:) removed"]),
        ("What?\n\n### Response:", "What?", ["prompt template wrappers (### Instruction:, ### Response:) removed"]),
        (
            "Below is an instruction that describes a task. Write a response.\n\n### Instruction:\nWhat?\n\n### Response:\n",
            "What?",
            ["prompt template wrappers (### Instruction:, ### Response:) removed"],
        ),
    ],
)
def test_text_is_cleaned_and_each_change_is_named(text: str, cleaned: str, fixes: list[str]) -> None:
    found: list[str] = []

    assert clean_text(text, found) == cleaned
    assert found == fixes


@pytest.mark.parametrize(
    "text",
    [
        "family: 👨‍👩‍👧‍👦, flag of England: 🏴󠁧󠁢󠁥󠁮󠁧󠁿, می‌خواهم, שלום, عربي",
        "## Heading\n### Response times\nThe `<|` operator of F#, a < b > c, list[int], {{ name }}",
        "<think>reasoning</think> <tool_call> stays",
        "tab\tand　full-width space",
    ],
)
def test_what_belongs_to_the_text_stays(text: str) -> None:
    fixes: list[str] = []

    assert clean_text(text, fixes) == unicodedata.normalize("NFC", text)
    assert fixes == []


@given(st.text(alphabet=st.characters() | st.sampled_from("\x00\u200b\ud800<|im_end>/s[]#: \n{}\u202e\u0301"), max_size=60))
def test_cleaning_is_complete_and_done_once(text: str) -> None:
    fixes: list[str] = []
    cleaned = clean_text(text, fixes)
    again: list[str] = []

    assert clean_text(cleaned, again) == cleaned
    assert again == []
    assert not REMOVED.search(cleaned)
    assert not SPECIAL.search(cleaned)
    assert bool(fixes) == (cleaned != text)


def turns(pattern: str) -> list[dict[str, Any]]:
    """`uas` -> user, assistant, system turns with content of their own; upper case: an empty one."""
    roles = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    return [{"role": roles[letter.lower()], "content": " " if letter.isupper() else f"{letter}{place}"} for place, letter in enumerate(pattern)]


def shape(messages: list[dict[str, Any]]) -> str:
    return "".join(message["role"][0] for message in messages)


@pytest.mark.parametrize(
    ("before", "after", "fixes"),
    [
        ("ua", "ua", []),
        ("suaua", "suaua", []),
        ("aua", "ua", ["leading assistant turn removed"]),
        ("saua", "sua", ["leading assistant turn removed"]),
        ("uau", "ua", ["user turn after the last answer removed"]),
        ("uua", "ua", ["consecutive user turns joined"]),
        ("uaa", "ua", ["consecutive assistant turns joined"]),
        ("ssua", "sua", ["consecutive system turns joined"]),
        ("Sua", "ua", ["empty system message removed"]),
        ("uatta", "uatta", []),
        ("uat", "ua", ["tool turn after the last answer removed"]),
    ],
)
def test_turns_are_put_in_order(before: str, after: str, fixes: list[str]) -> None:
    found: list[str] = []
    example = clean_example({"messages": turns(before)}, found)

    assert shape(example["messages"]) == after
    assert found == fixes


def test_joined_turns_keep_both_contents_and_are_trained_on_only_if_both_were() -> None:
    example = clean_example({"messages": turns("uaaua"), "train_on": [False, True, False, False, True]}, [])

    assert example == {
        "messages": [
            {"role": "user", "content": "u0"},
            {"role": "assistant", "content": "a1\n\na2"},
            {"role": "user", "content": "u3"},
            {"role": "assistant", "content": "a4"},
        ],
        "train_on": [False, False, False, True],
    }


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        ({"messages": turns("uA")}, "empty answer"),
        ({"messages": turns("Ua")}, "empty prompt"),
        ({"messages": turns("u")}, "no answer"),
        ({"messages": turns("s")}, "no answer"),
        ({"messages": turns("a")}, "no prompt"),
        ({"messages": turns("S")}, "no prompt"),
        ({"messages": turns("uasua")}, "system message in the middle"),
        ({"messages": turns("uta")}, "tool turn that no assistant"),
        ({"messages": turns("ua"), "train_on": [False, False]}, "every loss weight is 0"),
        ({"messages": [{"role": "user", "content": "\u200b\x00"}, {"role": "assistant", "content": "a"}]}, "empty prompt"),
        ({"text": " \n\u200b"}, "empty text"),
        ({"messages": turns("u"), "chosen": turns("a"), "rejected": turns("a")}, "the same"),
        ({"messages": turns("ua"), "chosen": turns("a"), "rejected": turns("a")}, "does not end with a user"),
        ({"messages": turns("u"), "chosen": turns("A"), "rejected": turns("a")}, "empty answer"),
        ({"messages": turns("u"), "chosen": turns("u"), "rejected": turns("a")}, "no answer in 'chosen'"),
    ],
)
def test_what_cannot_be_trained_on_says_why(example: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        clean_example(example, [])


def test_a_call_without_words_is_no_empty_answer() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"type": "function"}]}
    messages = [*turns("u"), call, {"role": "tool", "content": "r"}, {"role": "assistant", "content": "a"}]

    assert clean_example({"messages": list(messages)}, []) == {"messages": messages}


def test_preference_answers_are_cleaned_like_any_other() -> None:
    example = {"messages": turns("u"), "chosen": [{"role": "assistant", "content": "good</s>"}], "rejected": [{"role": "assistant", "content": "bad"}]}
    fixes: list[str] = []

    assert clean_example(example, fixes)["chosen"] == [{"role": "assistant", "content": "good"}]
    assert fixes == ["special tokens removed"]


def test_a_system_message_is_added_where_there_is_none() -> None:
    without, own = {"messages": turns("ua"), "train_on": [False, True]}, {"messages": turns("sua")}
    for example in (without, own):
        add_system(example, "be kind")

    assert shape(without["messages"]) == "sua" and without["messages"][0]["content"] == "be kind" and without["train_on"] == [False, False, True]
    assert own == {"messages": turns("sua")}


def test_places_are_told_from_code() -> None:
    assert placeholders("I am {{name}}, made by {{ author }} in {{城市}}; f'{{1}}' {{}} {name}") == ["name", "author", "城市"]
