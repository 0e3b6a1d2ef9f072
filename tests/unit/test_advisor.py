"""The advisor: what it says to typical wishes, and that it always says something with reasons in both languages."""

from itertools import product

import pytest

from danlu.services.advisor import QUESTIONS, Answers, advise

GOOD = {"wish": "style", "changes": "never", "examples": "hundreds", "tried": "fails", "sources": "no", "measure": "yes"}


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({}, "fine_tune"),
        ({"measure": "no"}, "not_yet"),
        ({"wish": "facts"}, "rag"),
        ({"tried": "helps"}, "prompt_first"),
        ({"examples": "few"}, "collect_data"),
        ({"examples": "none", "tried": "no"}, "prompt_first"),
        ({"sources": "yes"}, "rag_then_fine_tune"),
        ({"changes": "daily"}, "rag_then_fine_tune"),
    ],
)
def test_the_advice_follows_the_answers(change: dict[str, str], advice: str) -> None:
    assert advise(Answers.model_validate(GOOD | change)).advice == advice


def test_every_combination_gets_an_advice_with_reasons_and_a_next_step() -> None:
    names = list(QUESTIONS)
    for chosen in product(*(QUESTIONS[name][1] for name in names)):
        found = advise(Answers.model_validate(dict(zip(names, chosen, strict=True))))
        assert found.reasons and found.next_steps
        for english, chinese in (found.title, *found.reasons, *found.next_steps):
            assert english.isascii() and any("\u4e00" <= letter <= "\u9fff" for letter in chinese)


def test_without_a_way_to_measure_training_is_never_advised() -> None:
    others = {name: options for name, (_, options) in QUESTIONS.items() if name != "measure"}
    advices = {advise(Answers.model_validate(dict(zip(others, chosen, strict=True)) | {"measure": "no"})).advice for chosen in product(*others.values())}

    assert advices == {"not_yet"}
