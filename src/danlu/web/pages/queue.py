"""The queue: what runs, what comes next, and in which order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, get_args

from nicegui import ui

from danlu.services.platform import jobs, system
from danlu.services.platform.jobs import Move, Priority
from danlu.store.jobs import Job
from danlu.web.components.elements import Text, box, button, empty, icon, note, paragraph
from danlu.web.components.fields import choice
from danlu.web.components.jobs import JobLine, job_name
from danlu.web.components.messages import confirm, guarded
from danlu.web.live import Lines, queue_key, refresh_every
from danlu.web.rights import Rights, rights_in
from danlu.web.session import Session
from danlu.web.template import page

WAITING = ("queued", "waiting", "paused")


@page("/queue", title="queue.title", nav="queue")
async def show(s: Session) -> None:
    """All jobs that are not over."""
    with box("dl-col"):
        Text(s.t("queue.title"), "h1")
        paragraph(s.t("queue.intro"), "dl-sub")
    status = await s.do(system.get_system_status)
    if not any(worker.is_alive for worker in status.workers):
        note(s.t("queue.worker_none"), "warn")
    nothing = empty("low_priority", s.t("queue.empty_title"), s.t("queue.empty_text"))
    with nothing:
        button(s.t("shell.nav_new_run"), href="/new-run", classes="primary")
    rights: dict[str | None, Rights] = {}

    async def read() -> list[Job]:
        queue = await s.do(jobs.list_queue)
        for project_id in {job.project_id for job in queue} - set(rights):
            rights[project_id] = await rights_in(s, project_id) if project_id is not None else Rights(s, None)
        return queue

    async def act(operation: Any, *args: Any) -> None:
        """Do something with a job, and show what came of it."""
        await s.do(operation, *args)
        await look()

    with box("dl-card flush", "section") as card:
        lines: Lines[Job, QueueLine] = Lines(box("dl-list", "ul"), lambda job: QueueLine(s, job, rights[job.project_id].may(jobs.move_job), act))

    def tell(queue: list[Job]) -> None:
        nothing.set_visibility(not queue)
        card.set_visibility(bool(queue))
        for job, line in lines.show(queue):
            line.place(job, queue)

    look = await refresh_every(2.0, read, tell, queue_key)


class QueueLine(JobLine):
    """A job with what can be done about it; its buttons stay the same ones for as long as it is in the queue."""

    def __init__(self, s: Session, job: Job, may_change: bool, act: Callable[..., Awaitable[None]]) -> None:
        super().__init__(s, job)
        self.job, self.act, self.may_change = job, act, may_change
        self.same: list[Job] = []
        """Jobs of its class that wait, itself among them, in their order."""
        self.waiting: set[str] = set()
        self.element._props["data-job"] = job.id
        if not may_change:
            return
        with self.element:
            with box("dl-row") as self.order:
                names = {name: s.t(f"queue.{name}") for name in get_args(Priority)}
                self.priority = choice(s.t("queue.class"), names, job.priority, guarded(s, self._prioritised)).style("min-width: 120px")
                self.up = self._arrow("up", "arrow_upward", -1)
                self.down = self._arrow("down", "arrow_downward", +1)
            with box("dl-row"):
                self.pause = button(s.t("queue.pause"), guarded(s, partial(act, jobs.pause_job, job.id)), classes="small")
                self.resume = button(s.t("queue.resume"), guarded(s, partial(act, jobs.resume_job, job.id)), classes="small")
                self.cancel = button(s.t("queue.cancel"), guarded(s, self._cancel), classes="small danger")
        self.element.on("dragstart", js_handler=f"(e) => e.dataTransfer.setData('text/plain', '{job.id}')")
        for name in ("dragover", "dragleave"):
            self.element.on(name, js_handler="(e) => { if (e.currentTarget.draggable) window.danlu.over(e); }")
        self.element.on("drop", guarded(s, self._dropped), js_handler="(e) => emit([e.dataTransfer.getData('text/plain'), window.danlu.over(e)])")

    def place(self, job: Job, queue: list[Job]) -> None:
        """Show how it stands now, and where among the others."""
        self.tell(job)
        self.job, waiting = job, [other for other in queue if other.state in WAITING]
        self.same, self.waiting = [other for other in waiting if other.priority == job.priority], {other.id for other in waiting}
        if not self.may_change:
            return
        is_waiting = job.id in self.waiting
        self.element.props(f"draggable={'true' if is_waiting else 'false'}")
        self.order.set_visibility(is_waiting)
        self.pause.set_visibility(job.state == "running")
        self.resume.set_visibility(job.state == "paused")
        self.cancel.set_visibility(job.state != "cancelling")
        self.priority.set_value(job.priority)
        for arrow, step in ((self.up, -1), (self.down, +1)):
            if self._can_move(step):
                arrow.props(remove="disabled")
            else:
                arrow.props("disabled")

    def _rank(self) -> int:
        return next((rank for rank, other in enumerate(self.same) if other.id == self.job.id), -1)

    def _can_move(self, step: int) -> bool:
        rank = self._rank()
        return rank >= 0 and 0 <= rank + step < len(self.same)

    def _arrow(self, name: str, symbol: str, step: int) -> ui.element:
        made = box("dl-btn small", "button").props("type=button")
        made._props["data-move"] = f"{name} {self.job.id}"
        made._props["aria-label"] = made._props["title"] = self.s.t(f"queue.{name}")
        made.on("click", guarded(self.s, partial(self._move, name, step)), [])
        with made:
            icon(symbol)
        return made

    async def _move(self, name: str, step: int) -> None:
        if not self._can_move(step):
            return
        place = self._rank() + (-1 if step < 0 else 2)
        await self.act(jobs.move_job, self.job.id, Move(before=self.same[place].id if place < len(self.same) else None))
        self.element.client.run_javascript(f"window.danlu.focus('[data-move=\"{name} {self.job.id}\"]', '[data-job=\"{self.job.id}\"] button:enabled')")

    async def _prioritised(self, event: Any) -> None:
        if event.value != self.job.priority:
            await self.act(jobs.move_job, self.job.id, Move(priority=event.value))

    async def _cancel(self) -> None:
        s, job = self.s, self.job
        if await confirm(s, s.t("queue.cancel_title"), f"{job_name(s, job)}\n{s.t('queue.cancel_text')}", do=s.t("queue.cancel"), danger=True):
            await self.act(jobs.cancel_job, job.id)

    async def _dropped(self, event: Any) -> None:
        """Dropped on the upper half of this job: before it. On the lower half: behind it."""
        moved, is_behind = event.args
        if moved not in self.waiting - {self.job.id} or self.job.id not in self.waiting:
            return
        behind = [other.id for other in self.same[self._rank() + 1 :] if other.id != moved]
        before = self.job.id if not is_behind else next(iter(behind), None)
        await self.act(jobs.move_job, moved, Move(before=before, priority=self.job.priority))
