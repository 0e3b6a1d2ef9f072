"""Votes and ratings: which of several answers a person found better, and how good one answer is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from danlu.store import tables
from danlu.store.rows import Noun


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


VOTES = Noun(tables.votes, Vote, prefix="vot")
RATINGS = Noun(tables.ratings, Rating, prefix="rtg")
