"""An answer as it is written: pieces come from a thread, the page is redrawn twelve times a second at most."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from danlu.services.platform import chat
from danlu.services.platform.chat import ChatPiece, Question
from danlu.web.session import Session, aside

REDRAW_SECONDS = 1 / 12


UNDER_WAY: list[Answering] = []
"""Answers that are being written or waited for in this process."""


@dataclass(eq=False)
class Answering:
    """One answer under way."""

    s: Session
    project_id: str
    question: Question
    text: str = ""
    end: ChatPiece | None = None
    last: ChatPiece | None = None
    """The newest piece that is no text: loading, or waiting for others."""
    is_stopped: bool = False

    async def pieces(self) -> AsyncIterator[None]:
        """Yield whenever there is something new to draw.

        Raises:
            DanluError: the model cannot answer.
        """
        task = asyncio.ensure_future(aside(self._read, is_long=True))
        UNDER_WAY.append(self)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=REDRAW_SECONDS)
                yield
        finally:
            self.is_stopped = True
            UNDER_WAY.remove(self)
        await task

    def stop(self) -> None:
        """End it; what was written stays."""
        self.is_stopped = True

    def _read(self) -> None:
        found = chat.stream_answer(self.s.platform, self.s.actor, self.project_id, self.question)
        try:
            for piece in found:
                if piece.kind == "text":
                    self.text += piece.text
                elif piece.kind == "end":
                    self.end = piece
                else:
                    self.last = piece
                if self.is_stopped:
                    break
        finally:
            found.close()  # type: ignore[attr-defined]  # a generator: closing it stops the model


async def stop_all() -> None:
    """End every answer: the server stops, and must not wait for models."""
    for answering in UNDER_WAY:
        answering.stop()


def speed_of(end: ChatPiece) -> float:
    """Tokens per second."""
    return (end.num_tokens or 0) / max(0.001, end.seconds or 0.0)
