"""Times as people say them: `tonight`, `22:30`, `2026-11-30 06:00`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import typer

NIGHT = (22, 6)
"""The night begins at 22:00 and ends at 6:00, as the clock on the wall says."""


def moment(said: str, now: float) -> float:
    """The next such moment in seconds since 1970; `tonight` is now when it is night.

    Raises:
        typer.BadParameter: it is no time, or has passed.
    """
    text, here = said.strip().lower(), datetime.fromtimestamp(now)
    if text in ("tonight", "今晚"):
        is_night = here.hour >= NIGHT[0] or here.hour < NIGHT[1]
        return now if is_night else here.replace(hour=NIGHT[0], minute=0, second=0, microsecond=0).timestamp()
    clock = re.fullmatch(r"(\d{1,2}):(\d{2})", text)
    try:
        if clock is not None:
            found = here.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
            return (found if found > here else found + timedelta(days=1)).timestamp()
        wanted = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise typer.BadParameter(f"{said[:40]!r} is no time; say tonight, 22:30, or 2026-11-30 06:00") from error
    if wanted < now:
        raise typer.BadParameter(f"{said[:40]} has passed; a run without a time starts as soon as it can")
    return wanted
