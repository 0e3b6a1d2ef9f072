"""A job as a line of a list."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from danlu.services.platform import runs
from danlu.services.platform.runs import Stop
from danlu.store.jobs import Job
from danlu.web.components.elements import Text, box, link, moment, state_badge
from danlu.web.components.messages import choose
from danlu.web.session import Session
from danlu.web.words import CATALOGUE


def job_name(s: Session, job: Job) -> str:
    """What kind of work it is, and on what."""
    kind = s.t(f"queue.kind_{job.kind}") if f"queue.kind_{job.kind}" in CATALOGUE else job.kind
    subject = _subject(job.payload)
    return f"{kind}{s.t('basic.colon')}{subject}" if subject else kind


def _subject(payload: dict[str, Any]) -> str:
    recipe = payload.get("recipe") or {}
    return str(recipe.get("dataset") or payload.get("name") or payload.get("path") or "").rpartition("/")[2][:120]


async def ask_to_stop(s: Session, run_id: str, back_to: str) -> None:
    """Ask what becomes of a run, and do it; after it was discarded, go `back_to` the list."""
    outcomes = {"going": (s.t("run.keep_going"), "primary"), "keep": (s.t("run.stop_keep"), ""), "discard": (s.t("run.discard"), "danger")}
    chosen = await choose(s, s.t("run.stop_title"), s.t("run.stop_text"), outcomes, can_cancel=False)
    if chosen == "keep":
        await s.do(runs.stop_run, run_id, Stop(outcome="keep"))
    elif chosen == "discard":
        await s.do(runs.stop_run, run_id, Stop(outcome="discard"))
        ui.navigate.to(back_to)


class JobLine:
    """A job as a line of a list: name (the run's, where the caller knows it), state and time. Further parts are added by the caller."""

    def __init__(self, s: Session, job: Job, run_name: str = "") -> None:
        self.s = s
        self.shown: Any = None
        with box("", "li") as self.element, box():
            if job.run_id is not None:
                link(run_name or job_name(s, job), f"/{'sweeps' if job.kind == 'sweep' else 'runs'}/{job.run_id}", "dl-strong")
            else:
                Text(job_name(s, job), "span", "dl-strong")
            self.state = box("dl-row dl-small dl-muted")
        self.tell(job)

    def tell(self, job: Job) -> None:
        """Show how it stands now."""
        s, shown = self.s, (job.state, job.started_at, job.priority)
        if shown == self.shown:
            return
        self.shown = shown
        self.state.clear()
        with self.state:
            state_badge(s, job.state)
            before, _, after = s.t("queue.started" if job.started_at else "queue.submitted", when="|").partition("|")
            if before:
                Text(before.strip())
            moment(job.started_at or job.created_at)
            if after:
                Text(after.strip())
            if job.priority != "standard":
                Text(s.t(f"queue.{job.priority}"))
