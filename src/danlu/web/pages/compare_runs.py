"""Several runs side by side at an address that can be shared: curves in one picture, what differs, verdicts, forecasts."""

from __future__ import annotations

from nicegui import ui

from danlu.services.platform import proofs, runs, watching
from danlu.services.platform.proofs import ComparedRuns, Comparison
from danlu.services.platform.watching import Curves, RunForecast
from danlu.web.components.elements import Text, box, button, empty, paragraph
from danlu.web.components.messages import guarded, toast
from danlu.web.components.run_overlay import CURVES, Overlay, forecasts_card, metrics_card, runs_card, settings_card
from danlu.web.session import Session
from danlu.web.template import page

MOST_RUNS = 8
"""More curves in one picture cannot be told apart."""
NUM_POINTS = 400
TICK_SECONDS = 3.0
Found = tuple[ComparedRuns, list[Curves], list[RunForecast]]


@page("/runs/compare", title="compare_runs.title", nav="runs")
async def show(s: Session) -> None:
    """The runs of `?runs=ID,ID,...`; all of the project of the first one."""
    wanted = [id for id in dict.fromkeys((s.query("runs") or "").split(",")) if id]
    with box("dl-head"):
        with box("dl-col"):
            Text(s.t("compare_runs.title"), "h1")
            paragraph(s.t("compare_runs.intro"), "dl-sub")
        corner = box("dl-row dl-noprint")
    if len(wanted) < 2:
        with empty("show_chart", s.t("compare_runs.title"), s.t("compare_runs.choose")):
            button(s.t("project.title"), href="/runs", classes="primary")
        return
    if len(wanted) > MOST_RUNS:
        paragraph(s.t("compare_runs.too_many", number=MOST_RUNS), "dl-muted")
    view = View(s, wanted[:MOST_RUNS])
    await view.begin()
    with corner:
        button(s.t("project.title"), href="/runs", classes="small")
        copied = button(s.t("compare_runs.share"), classes="small", symbol="link")
        copied.on("click", js_handler="() => window.danlu.copy(location.href)")
        copied.on("click", lambda: toast(s, s.t("basic.copied"), tone="good"), [])


class View:
    """The open page."""

    def __init__(self, s: Session, ids: list[str]) -> None:
        self.s, self.ids = s, ids
        self.first = box("dl-col wide")
        self.curves_place = box("dl-col wide")
        self.rest = box("dl-col wide")

    async def begin(self) -> None:
        """Show everything, and go on while a run does.

        Raises:
            DanluError: who looks may not, or a run is not there.
        """
        self.project_id = (await self.s.do(runs.get_run, self.ids[0])).project_id
        found = await self._read()
        with self.curves_place:
            self.overlay = Overlay(self.s, found[0].runs)
        self._show(found)
        if not all(run.is_over for run in found[0].runs):
            self.timer = ui.timer(TICK_SECONDS, guarded(self.s, self._look_again), immediate=False)

    async def _read(self) -> Found:
        compared = await self.s.do(proofs.compare_runs, self.project_id, Comparison(run_ids=self.ids))
        names = ",".join(CURVES)
        curves = [await self.s.do(watching.get_curves, run.id, names=names, num_points=NUM_POINTS) for run in compared.runs]
        return compared, curves, [await self.s.do(watching.get_forecast, run.id) for run in compared.runs]

    async def _look_again(self) -> None:
        found = await self._read()
        if found != self.found:
            self._show(found)
        if all(run.is_over for run in found[0].runs):
            self.timer.deactivate()

    def _show(self, found: Found) -> None:
        self.found = found
        compared, curves, forecasts = found
        self.first.clear()
        with self.first:
            runs_card(self.s, compared)
        self.overlay.show(curves)
        self.rest.clear()
        with self.rest:
            settings_card(self.s, compared)
            metrics_card(self.s, compared)
            forecasts_card(self.s, compared.runs, forecasts)
