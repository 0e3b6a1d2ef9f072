"""What the pages that start work do while the server has no time to look at what was entered."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from danlu.errors import TooManyRequestsError
from danlu.services.platform.recipes import Preview
from danlu.web.components import start_form
from danlu.web.components.start_form import StartForm

WANTED = Preview(recipe={"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"})


def form(answers: list[Any], asks: list[str]) -> StartForm:
    """A form whose previews end as `answers` say, one after the other."""

    async def do(operation: Any, project_id: str, wanted: Preview) -> Any:
        asks.append(project_id)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return StartForm(SimpleNamespace(do=do), SimpleNamespace(id="prj_1"))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_form, "AGAIN_SECONDS", 0.0)


def test_a_preview_that_has_to_wait_for_others_is_asked_again() -> None:
    asks: list[str] = []
    busy = TooManyRequestsError("too many previews are under way", why="", fix="")

    found: Any = asyncio.run(form([busy, busy, "the answer"], asks).preview(WANTED))

    assert found == "the answer" and asks == ["prj_1"] * 3


def test_it_is_not_asked_again_when_something_newer_is_wanted() -> None:
    asks: list[str] = []
    made = form([TooManyRequestsError("too many previews are under way", why="", fix="")], asks)

    async def ask_and_change() -> Any:
        asked = asyncio.create_task(made.preview(WANTED))
        await asyncio.sleep(0)
        made.ask()
        return await asked

    assert asyncio.run(ask_and_change()) is None and len(asks) == 1
