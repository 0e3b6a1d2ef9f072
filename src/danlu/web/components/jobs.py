"""A job as a line of a list."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from danlu.store.jobs import Job
from danlu.web.components.elements import Text, box, link, moment, state_badge
from danlu.web.session import Session
from danlu.web.words import CATALOGUE


def job_name(s: Session, job: Job) -> str:
    """What kind of work it is, and on what."""
    kind = s.t(f"queue.kind_{job.kind}") if f"queue.kind_{job.kind}" in CATALOGUE else job.kind
    subject = _subject(job.payload)
    return f"{kind}: {subject}" if subject else kind


def _subject(payload: dict[str, Any]) -> str:
    recipe = payload.get("recipe") or {}
    return str(recipe.get("dataset") or payload.get("name") or payload.get("path") or "").rpartition("/")[2][:120]


def job_line(s: Session, job: Job, run_name: str = "") -> ui.element:
    """Name (the run's, where the caller knows it), state and time; further parts are added by the caller."""
    with box("", "li") as made, box():
        if job.run_id is not None:
            link(run_name or job_name(s, job), f"/runs/{job.run_id}", "dl-strong")
        else:
            Text(job_name(s, job), "span", "dl-strong")
        with box("dl-row dl-small dl-muted"):
            state_badge(s, job.state)
            Text(s.t("queue.started" if job.started_at else "queue.submitted"))
            moment(job.started_at or job.created_at)
            if job.priority != "standard":
                Text(s.t(f"queue.{job.priority}"))
    return made
