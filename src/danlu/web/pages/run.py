"""One run, live: where it stands, its curves, what the coach says, what it writes, its log."""

from __future__ import annotations

from functools import partial

import yaml
from nicegui import ui
from pydantic import ValidationError

from danlu.errors import ConflictError, error_from
from danlu.services.platform import chat, exports, models, runs, sweeps, watching
from danlu.services.platform.models import NewModel
from danlu.services.platform.runs import Stop
from danlu.store.runs import Run
from danlu.web.components.elements import Text, box, button, card, facts, fold, moment, note, state_badge
from danlu.web.components.fields import text_field
from danlu.web.components.jobs import ask_to_stop
from danlu.web.components.messages import confirm, error_panel, guarded, toast
from danlu.web.components.run_parts import Coach, Curves, LogView, Progress, Samples, forecast_card
from danlu.web.rights import Rights, rights_in
from danlu.web.run_feed import Delta, watch_run
from danlu.web.session import Session
from danlu.web.template import page


@page("/runs/{run_id}", title="run.title", nav="runs")
async def show(s: Session) -> None:
    """A run; nothing of it lives in this page."""
    run = await s.do(runs.get_run, s.path("run_id"))
    view = View(s, run, await rights_in(s, run.project_id))
    await watch_run(s, view.run.id, view.take)


class View:
    """The open page."""

    def __init__(self, s: Session, run: Run, rights: Rights) -> None:
        self.s, self.run, self.rights, self.is_sweep = s, run, rights, False
        self.head = box("dl-col wide")
        self.body = box("dl-col wide")

    def take(self, delta: Delta) -> None:
        """Show what is new; the first time, everything."""
        before, self.run = self.run, delta.run
        self.is_sweep = any(job.kind == "sweep" for job in delta.jobs)
        if delta.is_first or (before.state, before.name, before.verdict, before.error) != (delta.run.state, delta.run.name, delta.run.verdict, delta.run.error):
            self._draw_head()
        if delta.is_first:
            self._build(delta)
            return
        self.curves.append(delta.points)
        self._append(delta)
        self.log.append(delta.log)
        if _foretold(delta.run) != _foretold(before):
            ui.timer(0.1, guarded(self.s, self._forecast), once=True)

    def _append(self, delta: Delta) -> None:
        self.coach.append(delta.run.state, delta.points, delta.events)
        self.samples.append(delta.run.state, delta.events)
        self.progress.append(delta.run.state, delta.points, delta.events, delta.run.summary)

    def _build(self, delta: Delta) -> None:
        s, run = self.s, delta.run
        with self.body:
            with box("dl-split"):
                with box("dl-col wide"):
                    self.progress = Progress(s)
                    self.curves = Curves(s, delta.points, run.name or run.id)
                    self.samples = Samples(s)
                with box("dl-col wide"):
                    self.coach = Coach(s, run.id)
                    with card(s.t("run.forecast")):
                        self.forecast = box()
            with card(s.t("run.log")):
                self.log = LogView(s, delta.log)
            with card(), fold(s.t("run.recipe")):
                Text(yaml.safe_dump(run.resolved or run.recipe, allow_unicode=True, sort_keys=False), "pre", "dl-pre")
        self._append(delta)
        ui.timer(0.05, guarded(s, self._forecast), once=True)

    async def _forecast(self) -> None:
        found = await self.s.do(watching.get_forecast, self.run.id)
        self.forecast.clear()
        with self.forecast:
            forecast_card(self.s, found, self.run.state)

    def _draw_head(self) -> None:
        s, run = self.s, self.run
        self.head.clear()
        with self.head:
            with box("dl-head"):
                with box("dl-col"):
                    Text(run.name or run.id, "h1")
                    with box("dl-row dl-muted"):
                        state_badge(s, run.state)
                        if run.verdict:
                            state_badge(s, run.verdict)
                        moment(run.finished_at or run.started_at or run.created_at)
                with box("dl-row dl-noprint"):
                    self._buttons()
            recipe = run.resolved or run.recipe
            pairs = [(s.t("run.base"), run.base_model), (s.t("run.data"), str(recipe["dataset"])), (s.t("run.method"), _type(recipe.get("method")))]
            with box("dl-row between"):
                shown = [(name, value.rpartition("/")[2] if value.startswith("/") else value) for name, value in pairs]
                facts(shown).style("flex: 1 1 420px")
                with box("dl-row dl-noprint"):
                    self._more_buttons()
            if self.is_sweep:
                note(s.t("sweeps.this_is"))
            if run.error:
                error_panel(s, error_from({"code": "", "what": "", "why": "", "fix": ""} | run.error))

    def _buttons(self) -> None:
        s, run, may = self.s, self.run, self.rights.may
        if run.state == "succeeded":
            button(s.t("run.proof"), href=f"/runs/{run.id}/proof", classes="primary")
            if may(chat.answer):
                button(s.t("shell.nav_chat"), href=f"/chat?project={run.project_id}&model={run.id}")
            button(s.t("shell.nav_compare"), href=f"/compare?project={run.project_id}&models={run.id},{run.base_model}")
            button(s.t("models.export"), href=f"/exports?project={run.project_id}&run={run.id}")
            if may(models.register_model):
                button(s.t("models.register"), guarded(s, self._register))
        if run.state in ("paused", "failed", "cancelled") and may(runs.resume_run):
            button(s.t("run.continue"), guarded(s, partial(s.do, runs.resume_run, run.id)), classes="primary", symbol="play_arrow")
        if run.state in ("queued", "running") and may(runs.stop_run):
            button(s.t("run.stop"), guarded(s, partial(ask_to_stop, s, run.id, "/runs")), classes="danger")
        if run.state in ("paused", "failed", "cancelled") and may(runs.stop_run):
            button(s.t("run.discard"), guarded(s, self._discard), classes="danger")

    def _more_buttons(self) -> None:
        """What is done seldom, beside the facts: one line would not hold all."""
        s, run, may = self.s, self.run, self.rights.may
        if self.is_sweep:
            button(s.t("sweeps.open"), href=f"/sweeps/{run.id}", symbol="tune")
        elif may(sweeps.submit_sweep):
            button(s.t("sweeps.try_settings"), href=f"/sweeps/new?from={run.id}", classes="quiet")
        if may(runs.submit_run):
            button(s.t("run.again"), href=f"/new-run?from={run.id}", classes="quiet")
        if run.state == "succeeded" and may(runs.delete_run):
            button(s.t("run.delete"), guarded(s, self._delete), classes="quiet", symbol="delete")

    async def _delete(self) -> None:
        """Delete the run, after saying what goes with it. A model that came out of it, or a round that starts from it, keeps it."""
        s, run = self.s, self.run
        found = await s.do(exports.list_exports, run.project_id, run_id=run.id)
        count = f"{len(found.items)}+" if found.next else str(len(found.items))
        if await confirm(s, s.t("run.delete_title"), s.t("run.delete_text", exports=count), do=s.t("run.delete"), danger=True):
            await s.do(runs.delete_run, run.id)
            ui.navigate.to("/runs")

    async def _discard(self) -> None:
        s = self.s
        if await confirm(s, s.t("run.discard_title"), s.t("run.discard_text"), do=s.t("run.discard"), danger=True):
            await s.do(runs.stop_run, self.run.id, Stop(outcome="discard"))
            ui.navigate.to("/runs")

    async def _register(self) -> None:
        """Ask for a name and keep the result under it."""
        s = self.s
        with s.toasts, ui.dialog() as dialog, box("dl-dialog").props("role=dialog aria-modal=true") as content:
            content._props["aria-label"] = s.t("models.register")
            Text(s.t("models.register"), "h2")
            field = text_field(s.t("models.register_name"), self.run.name.replace("@", " ").replace("/", " ")[:100], maxlength=100)
            with box("dl-row"):
                button(s.t("models.register"), lambda: dialog.submit(field.value), classes="primary")
                button(s.t("basic.cancel"), dialog.close, classes="quiet")
        name = await dialog
        dialog.delete()
        if name and str(name).strip():
            try:
                body = NewModel(name=str(name).strip())
            except ValidationError as error:
                told = error.errors()[0]["msg"]
                raise ConflictError(f"{str(name)[:60]!r} cannot be a name", why=told, fix="leave out @, / and line breaks") from error
            made = await s.do(models.register_model, self.run.id, body)
            toast(s, s.t("models.register_done", name=f"{made.name}@{made.number}"), tone="good")


def _foretold(run: Run) -> tuple[object, ...]:
    """What the card of the forecast hangs on: the forecast itself comes in the middle of a run, measurements at its end."""
    return run.state, (run.summary or {}).get("forecast")


def _type(part: object) -> str:
    return str(part.get("type")) if isinstance(part, dict) else str(part)
