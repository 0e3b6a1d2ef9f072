"""The queue: what runs, what comes next, and in which order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, get_args

from nicegui import ui

from danlu.services.platform import jobs, workers
from danlu.services.platform.jobs import Move, Priority
from danlu.store.jobs import Job
from danlu.web.components.elements import Text, box, button, empty, icon, note, paragraph
from danlu.web.components.fields import choice
from danlu.web.components.jobs import job_line, job_name
from danlu.web.components.messages import confirm, guarded
from danlu.web.live import queue_key, refresh_every
from danlu.web.session import Session
from danlu.web.template import page


@page("/queue", title="queue.title", nav="queue")
async def show(s: Session) -> None:
    """All jobs that are not over."""
    with box("dl-col"):
        Text(s.t("queue.title"), "h1")
        paragraph(s.t("queue.intro"), "dl-sub")
    known = await s.do(workers.list_workers)
    if not any(worker.is_alive for worker in known):
        note(s.t("queue.worker_none"), "warn")
    elif gone := {worker.home: worker.host for worker in known if not worker.is_alive}:
        waiting = {job.home for job in await s.do(jobs.list_queue)}
        for host in sorted({gone[home] for home in gone if home in waiting}):
            note(s.t("queue.worker_elsewhere", host=host), "warn")
    place = box()

    async def act(operation: Any, *args: Any) -> None:
        """Do something with a job, and show what came of it: once, since what is pressed while a list is drawn anew is lost."""
        await s.do(operation, *args)
        await look()

    look = await refresh_every(2.0, partial(s.do, jobs.list_queue), lambda queue: _draw(s, place, queue, act), queue_key)


def _draw(s: Session, place: ui.element, queue: list[Job], act: Callable[..., Awaitable[None]]) -> None:
    place.clear()
    with place:
        if not queue:
            with empty("low_priority", s.t("queue.empty_title"), s.t("queue.empty_text")):
                button(s.t("shell.nav_new_run"), href="/new-run", classes="primary")
            return

        async def cancel(job: Job) -> None:
            if await confirm(s, s.t("queue.cancel_title"), f"{job_name(s, job)}\n{s.t('queue.cancel_text')}", do=s.t("queue.cancel"), danger=True):
                await act(jobs.cancel_job, job.id)

        waiting = [job for job in queue if job.state in ("queued", "waiting", "paused")]
        with box("dl-card flush", "section"), box("dl-list", "ul"):
            for job in queue:
                with job_line(s, job) as line:
                    _order(s, line, job, waiting, act)
                    with box("dl-row"):
                        if job.state == "running":
                            button(s.t("queue.pause"), guarded(s, partial(act, jobs.pause_job, job.id)), classes="small")
                        elif job.state == "paused":
                            button(s.t("queue.resume"), guarded(s, partial(act, jobs.resume_job, job.id)), classes="small")
                        if job.state != "cancelling":
                            button(s.t("queue.cancel"), guarded(s, partial(cancel, job)), classes="small danger")


def _order(s: Session, line: ui.element, job: Job, waiting: list[Job], act: Callable[..., Awaitable[None]]) -> None:
    """Class, arrows and drag and drop of a job that has not started."""
    if job not in waiting:
        return
    same = [other for other in waiting if other.priority == job.priority]
    rank = same.index(job)

    async def move(before: str | None, button: str) -> None:
        await act(jobs.move_job, job.id, Move(before=before))
        line.client.run_javascript(f"window.danlu.focus('[data-move=\"{button} {job.id}\"]', '[data-job=\"{job.id}\"] button:enabled')")

    async def change(event: Any) -> None:
        await act(jobs.move_job, job.id, Move(priority=event.value))

    with box("dl-row"):
        names = {name: s.t(f"queue.{name}") for name in get_args(Priority)}
        choice(s.t("queue.class"), names, job.priority, guarded(s, change)).style("min-width: 120px")
        _arrow(s.t("queue.up"), "arrow_upward", f"up {job.id}", guarded(s, partial(move, same[rank - 1].id, "up")) if rank else None)
        after = same[rank + 2].id if rank + 2 < len(same) else None
        _arrow(s.t("queue.down"), "arrow_downward", f"down {job.id}", guarded(s, partial(move, after, "down")) if rank + 1 < len(same) else None)

    async def dropped(event: Any) -> None:
        """Dropped on the upper half of this job: before it. On the lower half: behind it."""
        moved, is_behind = event.args
        if moved not in {other.id for other in waiting} - {job.id}:
            return
        behind = [other.id for other in same[rank + 1 :] if other.id != moved]
        before = job.id if not is_behind else next(iter(behind), None)
        await act(jobs.move_job, moved, Move(before=before, priority=job.priority))

    line.props("draggable=true")
    line._props["data-job"] = job.id
    line.on("dragstart", js_handler=f"(e) => e.dataTransfer.setData('text/plain', '{job.id}')")
    line.on("dragover", js_handler="(e) => window.danlu.over(e)")
    line.on("dragleave", js_handler="(e) => window.danlu.over(e)")
    line.on("drop", guarded(s, dropped), js_handler="(e) => emit([e.dataTransfer.getData('text/plain'), window.danlu.over(e)])")


def _arrow(label: str, symbol: str, name: str, on_click: Callable[..., Any] | None) -> None:
    made = box("dl-btn small", "button").props("type=button")
    made._props["data-move"] = name
    made._props["aria-label"] = label
    made._props["title"] = label
    if on_click is None:
        made.props("disabled")
    else:
        made.on("click", on_click, [])
    with made:
        icon(symbol)
