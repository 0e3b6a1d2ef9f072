"""Use cases on what people think of answers: votes between models, ratings and corrections of one, and both as training pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import orjson
from pydantic import Field

from danlu.errors import ConflictError, DataError, NotFoundError, TooLargeError
from danlu.recipe.base import StrictModel
from danlu.services.platform.datasets import add_version
from danlu.services.platform.file_names import DatasetName
from danlu.services.platform.inputs import run_of
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.storage import keep_cached, scratch_folder, write_lines
from danlu.store.datasets import DATASETS, DatasetVersion, newest_version
from danlu.store.engine import Connection
from danlu.store.rows import Page
from danlu.store.votes import RATINGS, VOTES, Rating, Tally, Vote, count

MAX_CHARS = 100_000
PAIRS_FILE = "pairs.jsonl"
MAX_EXPORT_BYTES = 64 * 1024**2
"""What is answered at once; more becomes a dataset, and is downloaded."""


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


class NewPairs(StrictModel):
    """What the pairs of a project are to be called."""

    name: DatasetName = "votes"
    """Name of the dataset; where the project has one of this name, the pairs become its next version."""


@operation("POST", "/projects/{project_id}/votes", right="reviewer")
def create_vote(call: Call, project_id: str, body: NewVote) -> Vote:
    """Keep which answer was found better.

    Raises:
        NoRoomError: the disk is as full as it may be.
    """
    if body.winner is not None and body.winner >= len(body.answers):
        raise NotFoundError(f"there is no answer {body.winner}", why=f"{len(body.answers)} were shown, counted from 0", fix="name one of them, or none")
    call.platform.artifacts.check_room(0)
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
    """Keep what someone thinks of an answer, with the model that wrote it; of the same answer, one's newest opinion replaces the earlier one.

    A correction stays until another one is given.

    Raises:
        NoRoomError: the disk is as full as it may be.
    """
    call.platform.artifacts.check_room(0)
    connection, values, created_by = call.connection, body.model_dump(mode="json"), call.actor.user_id
    same = RATINGS.all(connection, project_id=project_id, created_by=created_by, model=body.model, answer=body.answer)
    before = next((one for one in same if one.messages == values["messages"]), None)
    if before is not None:
        return RATINGS.update(connection, before.id, score=body.score, correction=body.correction or before.correction)
    try:
        run_id = run_of(connection, project_id, body.model).id
    except NotFoundError:  # a base model: nothing of this project wrote it
        run_id = None
    return RATINGS.insert(connection, project_id=project_id, run_id=run_id, created_by=created_by, **values)


@operation("GET", "/projects/{project_id}/ratings", right="viewer")
def list_ratings(call: Call, project_id: str, run_id: str | None = None, limit: int = 50, after: str | None = None) -> Page[Rating]:
    """Ratings of a project, or of one run's answers, newest first."""
    return RATINGS.page(call.connection, limit=limit, after=after, project_id=project_id, **({} if run_id is None else {"run_id": run_id}))


@operation("DELETE", "/ratings/{rating_id}", right="editor")
def delete_rating(call: Call, rating_id: str) -> None:
    """Delete a rating."""
    RATINGS.delete(call.connection, rating_id)


@operation("GET", "/projects/{project_id}/votes/tally", right="viewer")
def count_votes(call: Call, project_id: str) -> Tally:
    """How the models fared, and how many training pairs the votes and corrections make."""
    return count(call.connection, project_id)


@operation("GET", "/projects/{project_id}/pairs", right="viewer")
def export_pairs(call: Call, project_id: str) -> str:
    """Votes and corrections as JSONL rows `{messages, chosen, rejected}`: a data file for preference objectives. Ties make no pair.

    Raises:
        TooLargeError: they are too many for one answer.
    """
    lines, size = [], 0
    for line in _lines(call.connection, project_id):
        lines.append(line)
        size += len(line)
        if size > MAX_EXPORT_BYTES:
            raise TooLargeError(
                "these pairs are too many for one answer",
                why=f"they take more than {MAX_EXPORT_BYTES >> 20} MB",
                fix="make a dataset of them, and download that",
            )
    return b"".join(lines).decode()


@operation("POST", "/projects/{project_id}/pairs", right="editor", own_transaction=True)
def make_pairs_dataset(call: Call, project_id: str, body: NewPairs) -> DatasetVersion:
    """Make a dataset of the votes and corrections, or the next version of the one that they were before; where nothing was added, return the newest.

    Raises:
        DataError: there is no pair yet.
        ConflictError: another dataset has this name.
        NoRoomError: it would not fit.
    """
    platform = call.platform
    with scratch_folder(platform) as scratch:
        path = scratch / PAIRS_FILE
        with platform.database.reading() as connection:
            write_lines(platform, project_id, path, _lines(connection, project_id))
        if not path.stat().st_size:
            raise DataError("there are no pairs yet", why="ties and answers that are the same make none", fix="vote on some answers, or correct them")
        stored = platform.artifacts.put_file(path, is_final=True)
        keep_cached(platform, stored.digest, PAIRS_FILE, path)
    with platform.database.writing() as connection:
        dataset = DATASETS.find(connection, project_id=project_id, name=body.name)
        newest = newest_version(connection, dataset.id) if dataset is not None else None
        if newest is not None and newest.file_name != PAIRS_FILE:
            raise ConflictError(f"{body.name!r} is another dataset", why="it was not made of votes", fix="rename that dataset, or choose another name")
        if newest is not None and newest.digest == stored.digest:
            return newest
        made = add_version(
            connection,
            platform,
            project_id,
            stored,
            file_name=PAIRS_FILE,
            dataset_id=None if dataset is None else dataset.id,
            name=body.name,
            parent_id=None if newest is None else newest.id,
            created_by=call.actor.user_id,
        )
        call.settle(connection, made)
        return made


def _lines(connection: Connection, project_id: str) -> Iterator[bytes]:
    for vote in VOTES.each(connection, project_id=project_id):
        yield from map(_line, _of_vote(vote))
    for rating in RATINGS.each(connection, project_id=project_id):
        yield from map(_line, _of_rating(rating))


def _line(pair: dict[str, Any]) -> bytes:
    return orjson.dumps(pair, option=orjson.OPT_APPEND_NEWLINE)


def _of_vote(vote: Vote) -> list[dict[str, Any]]:
    """One pair for each answer that lost to another."""
    if vote.winner is None:
        return []
    best = vote.answers[vote.winner]["text"]
    return [_pair(vote.messages, best, answer["text"]) for answer in vote.answers if answer["text"] != best]


def _of_rating(rating: Rating) -> list[dict[str, Any]]:
    """One pair for a correction."""
    if not rating.correction or rating.correction == rating.answer:
        return []
    return [_pair(rating.messages, rating.correction, rating.answer)]


def _pair(messages: list[dict[str, Any]], chosen: str, rejected: str) -> dict[str, Any]:
    return {"messages": messages, "chosen": chosen, "rejected": rejected}
