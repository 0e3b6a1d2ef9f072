"""Use cases on what people think of answers: votes between models, ratings and corrections of one, and both as training pairs."""

from __future__ import annotations

from typing import Any, Literal

import orjson
from pydantic import Field

from danlu.errors import NotFoundError
from danlu.recipe.base import StrictModel
from danlu.services.platform.inputs import run_of
from danlu.services.platform.operations import Call, operation
from danlu.store.rows import MAX_PAGE, Page
from danlu.store.votes import RATINGS, VOTES, Rating, Vote

MAX_CHARS = 100_000


class Turn(StrictModel):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=MAX_CHARS)


class Shown(StrictModel):
    """An answer as it was shown."""

    model: str = Field(max_length=200)
    """Who wrote it: a run's id, a model `name@number`, or a base model."""
    text: str = Field(max_length=MAX_CHARS)


class NewVote(StrictModel):
    """Which of several answers is better."""

    messages: list[Turn] = Field(min_length=1, max_length=200)
    """What was asked."""
    answers: list[Shown] = Field(min_length=2, max_length=4)
    """In the order in which they were shown."""
    winner: int | None = Field(None, ge=0, le=3)
    """Position of the better answer; null when none is."""
    is_blind: bool = False
    """Whether the names of the models were hidden."""


class NewRating(StrictModel):
    """What an answer is worth, and what it should have been."""

    messages: list[Turn] = Field(min_length=1, max_length=200)
    """What was asked."""
    answer: str = Field(max_length=MAX_CHARS)
    """What the model wrote."""
    model: str = Field(max_length=200)
    """Who wrote it: a run's id, a model `name@number`, or a base model."""
    score: int = Field(ge=1, le=5)
    """1 (bad) to 5 (good)."""
    correction: str | None = Field(None, max_length=MAX_CHARS)
    """A better answer."""


@operation("POST", "/projects/{project_id}/votes", right="reviewer")
def create_vote(call: Call, project_id: str, body: NewVote) -> Vote:
    """Keep which answer was found better."""
    if body.winner is not None and body.winner >= len(body.answers):
        raise NotFoundError(f"there is no answer {body.winner}", why=f"{len(body.answers)} were shown, counted from 0", fix="name one of them, or none")
    values = body.model_dump(mode="json")
    return VOTES.insert(call.connection, project_id=project_id, created_by=call.actor.user_id, **values)


@operation("GET", "/projects/{project_id}/votes", right="viewer")
def list_votes(call: Call, project_id: str, limit: int = 50, after: str | None = None) -> Page[Vote]:
    """Votes of a project, newest first."""
    return VOTES.page(call.connection, limit=limit, after=after, project_id=project_id)


@operation("DELETE", "/votes/{vote_id}", right="editor")
def delete_vote(call: Call, vote_id: str) -> None:
    """Delete a vote."""
    VOTES.delete(call.connection, vote_id)


@operation("POST", "/projects/{project_id}/ratings", right="reviewer")
def create_rating(call: Call, project_id: str, body: NewRating) -> Rating:
    """Keep what someone thinks of an answer, with the model that wrote it."""
    try:
        run_id = run_of(call.connection, project_id, body.model).id
    except NotFoundError:  # a base model: nothing of this project wrote it
        run_id = None
    values = body.model_dump(mode="json")
    return RATINGS.insert(call.connection, project_id=project_id, run_id=run_id, created_by=call.actor.user_id, **values)


@operation("GET", "/projects/{project_id}/ratings", right="viewer")
def list_ratings(call: Call, project_id: str, run_id: str | None = None, limit: int = 50, after: str | None = None) -> Page[Rating]:
    """Ratings of a project, or of one run's answers, newest first."""
    return RATINGS.page(call.connection, limit=limit, after=after, project_id=project_id, **({} if run_id is None else {"run_id": run_id}))


@operation("DELETE", "/ratings/{rating_id}", right="editor")
def delete_rating(call: Call, rating_id: str) -> None:
    """Delete a rating."""
    RATINGS.delete(call.connection, rating_id)


@operation("GET", "/projects/{project_id}/pairs", right="viewer")
def export_pairs(call: Call, project_id: str) -> str:
    """Votes and corrections as JSONL rows `{messages, chosen, rejected}`: a data file for preference objectives. Ties make no pair."""
    rows: list[dict[str, Any]] = []
    for vote in _all(VOTES, call, project_id):
        for place, answer in enumerate(vote.answers):
            if vote.winner is not None and place != vote.winner and answer["text"] != vote.answers[vote.winner]["text"]:
                rows.append(_pair(vote.messages, vote.answers[vote.winner]["text"], answer["text"]))
    for rating in _all(RATINGS, call, project_id):
        if rating.correction and rating.correction != rating.answer:
            rows.append(_pair(rating.messages, rating.correction, rating.answer))
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows).decode()


def _all(noun: Any, call: Call, project_id: str) -> list[Any]:
    found: list[Any] = []
    after: str | None = None
    while True:
        page = noun.page(call.connection, limit=MAX_PAGE, after=after, project_id=project_id)
        found += page.items
        after = page.next
        if after is None:
            return found[::-1]


def _pair(messages: list[dict[str, Any]], chosen: str, rejected: str) -> dict[str, Any]:
    return {"messages": messages, "chosen": chosen, "rejected": rejected}
