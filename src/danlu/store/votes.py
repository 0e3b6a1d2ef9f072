"""Votes and ratings: which of several answers a person found better, how good one answer is, and both counted.

The database counts: what was asked and answered is not read for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Integer, Text, and_, case, cast, distinct, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import column

from danlu.store.rows import Noun
from danlu.store.tables import ratings, votes


@dataclass(frozen=True)
class Vote:
    """One comparison by one person."""

    id: str
    project_id: str
    messages: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    winner: int | None
    is_blind: bool
    created_by: str | None
    created_at: float
    updated_at: float
    version: int


@dataclass(frozen=True)
class Rating:
    """What one person thinks of one answer of a model, and what it should have been."""

    id: str
    project_id: str
    run_id: str | None
    model: str
    messages: list[dict[str, Any]]
    answer: str
    score: int
    correction: str | None
    created_by: str | None
    created_at: float
    updated_at: float
    version: int


@dataclass(frozen=True)
class ModelTally:
    """How one model fared in the votes."""

    model: str
    num_shown: int
    """Votes in which it answered."""
    num_better: int
    num_equal: int


@dataclass(frozen=True)
class Tally:
    """The votes and ratings of a project, counted."""

    num_votes: int
    num_blind: int
    """Votes that were cast without seeing the names of the models."""
    num_ties: int
    num_ratings: int
    num_corrections: int
    num_pairs: int
    """Answers that lost to another one, and corrections that differ from their answer: the rows of the training pairs."""
    models: list[ModelTally]
    """The most often shown first."""


def _chars(messages: list[dict[str, Any]], *texts: str | None) -> int:
    return sum(len(message["content"]) for message in messages) + sum(len(text or "") for text in texts)


VOTES = Noun(votes, Vote, prefix="vot", weigh=lambda vote: _chars(vote.messages, *(answer["text"] for answer in vote.answers)))
RATINGS = Noun(ratings, Rating, prefix="rtg", weigh=lambda rating: _chars(rating.messages, rating.answer, rating.correction))


def count(connection: Connection, project_id: str) -> Tally:
    """Count the votes and ratings of a project."""
    of_project = votes.c.project_id == project_id
    is_tie = votes.c.winner.is_(None)
    cast_votes = select(func.count(), _number(votes.c.is_blind), _number(is_tie)).select_from(votes).where(of_project)
    is_correction = and_(ratings.c.correction.is_not(None), ratings.c.correction != "")
    is_pair = and_(is_correction, ratings.c.correction != ratings.c.answer)
    rated = select(func.count(), _number(is_correction), _number(is_pair)).select_from(ratings).where(ratings.c.project_id == project_id)
    num_votes, num_blind, num_ties = connection.execute(cast_votes).one()
    num_ratings, num_corrections, num_pairs = connection.execute(rated).one()

    answers, place, model, text, best = _answers(connection.dialect.name)
    lost = select(func.count()).select_from(votes, answers).where(of_project, place != votes.c.winner, text != best)
    num_shown, winning = func.count(distinct(votes.c.id)), and_(votes.c.winner.is_not(None), place == votes.c.winner)
    by_model = select(model.label("name"), num_shown, _distinct_votes(winning), _distinct_votes(is_tie)).select_from(votes, answers).where(of_project)
    rows = connection.execute(by_model.group_by("name").order_by(num_shown.desc(), "name"))
    return Tally(
        num_votes,
        num_blind,
        num_ties,
        num_ratings,
        num_corrections,
        num_pairs + connection.execute(lost).scalar_one(),
        [ModelTally(*row) for row in rows],
    )


def _number(condition: Any) -> Any:
    """How many rows meet a condition."""
    return func.count(case((condition, 1)))


def _distinct_votes(condition: Any) -> Any:
    return func.count(distinct(case((condition, votes.c.id))))


def _answers(dialect: str) -> tuple[Any, Any, Any, Any, Any]:
    """The answers of each vote as rows: (what to select from, place, model, text, text of the better answer)."""
    if dialect == "postgresql":
        found = func.jsonb_array_elements(votes.c.answers).table_valued(column("value", JSONB), with_ordinality="number", joins_implicitly=True)
        found = found.render_derived(name="answer")
        best: Any = votes.c.answers.op("->")(votes.c.winner).op("->>")("text")
        return found, found.c.number - 1, found.c.value.op("->>")("model"), found.c.value.op("->>")("text"), best
    found = func.json_each(votes.c.answers).table_valued("key", "value", joins_implicitly=True)
    best = func.json_extract(votes.c.answers, literal("$[") + cast(votes.c.winner, Text) + literal("].text"))
    return found, cast(found.c.key, Integer), func.json_extract(found.c.value, "$.model"), func.json_extract(found.c.value, "$.text"), best
