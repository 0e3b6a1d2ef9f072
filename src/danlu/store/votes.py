"""Votes: which of several answers a person found better."""

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
    created_by: str | None
    created_at: float
    updated_at: float
    version: int


VOTES = Noun(tables.votes, Vote, prefix="vot")
