"""What a kind of job is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from danlu.plugins import Registry
from danlu.recipe.base import StrictModel

Outcome = tuple[Literal["succeeded", "paused"], dict[str, Any]]
"""How the work ended, and what it tells (small: it is stored in the database)."""


class JobKind(StrictModel, ABC):
    """The payload of a job of this kind, and the work."""

    type: str
    can_pause: ClassVar[bool] = False
    """Whether it goes on from a checkpoint after SIGTERM, so that it can make room for others; else it begins anew when it was stopped."""

    @abstractmethod
    def work(self, folder: Path) -> Outcome:
        """Do it, in the job's own process. Started again after a kill it goes on where it was, or begins anew.

        Raises:
            DanluError: what the user has to know.
        """

    def progress(self) -> float:
        """A number that grows with what would not have to be done again after a kill."""
        return 0.0


KINDS: Registry[BaseModel] = Registry("kind of job", package="danlu.worker.kinds")
