"""The proof of a run: verdict, metrics with intervals, what was forgotten, and the cases behind it."""

from __future__ import annotations

from functools import partial

import orjson
from nicegui import ui

from danlu.errors import NotFoundError
from danlu.evaluation.report import words
from danlu.services.platform import downloads, proofs, runs
from danlu.services.platform.proofs import Order, Proof
from danlu.store.runs import Run
from danlu.web.components.elements import Text, box, button, card, empty, link, note, paragraph, segmented, state_badge
from danlu.web.components.messages import guarded
from danlu.web.components.proof_parts import case, forest, share, verdict_banner
from danlu.web.session import Session, aside
from danlu.web.template import page

CASES = 5


@page("/runs/{run_id}/proof", title="proof.title", nav="runs")
async def show(s: Session) -> None:
    """Is it better, by how much, how sure are we, and what did it forget?"""
    run = await s.do(runs.get_run, s.path("run_id"))
    with box("dl-head"):
        with box("dl-col"):
            Text(s.t("proof.title"), "h1")
            link(run.name or run.id, f"/runs/{run.id}")._props["title"] = s.t("proof.run")
        buttons = box("dl-row dl-noprint")
    try:
        proof = await s.do(proofs.get_proof, run.id)
    except NotFoundError:
        with empty("fact_check", s.t("proof.not_yet_title"), s.t("proof.not_yet_text")):
            button(s.t("proof.run"), href=f"/runs/{run.id}", classes="primary")
        return
    with buttons:
        button(s.t("proof.compare"), href=f"/compare?project={run.project_id}&models={run.id},{run.base_model}", classes="primary")
        button(s.t("models.export"), href=f"/exports?project={run.project_id}&run={run.id}")
        button(s.t("proof.download_html"), guarded(s, partial(_download, s, run, "html")), classes="small quiet", symbol="download")
        button(s.t("proof.download_json"), guarded(s, partial(_download, s, run, "json")), classes="small quiet", symbol="download")
        button(s.t("proof.print"), classes="small quiet", symbol="print").on("click", js_handler="() => window.print()")
    verdict_banner(s, proof)
    if proof.warnings:
        with card(s.t("proof.warnings")):
            for warning in proof.warnings:
                note(s.pick(warning), "warn")
    with card(s.t("proof.forest"), "flush", tip=s.t("glossary.interval_means"), s=s) as made:
        paragraph(s.t("proof.forest_text"), "dl-muted dl-small").style("padding: 0 16px 8px")
        forest(s, proof.metrics)
    made.set_visibility(bool(proof.metrics))
    if proof.retention:
        _retention(s, proof)
    await Cases(s, run.id).turn(0)


def _retention(s: Session, proof: Proof) -> None:
    retention = proof.retention or {}
    with card(s.t("proof.retention"), tip=s.t("glossary.retention_means"), s=s), box("dl-row"):
        state_badge(s, retention["label"])
        base, tuned = (words.value(retention[name], retention["unit"]) for name in ("base", "tuned"))
        Text(s.t("proof.retention_text", base=base, tuned=tuned, change=share(s, retention["relative"])))


async def _download(s: Session, run: Run, kind: str) -> None:
    name = f"danlu-{run.id}"
    if kind == "json":
        report = await s.do(proofs.get_report, run.id)
        ui.download.content(orjson.dumps(report, option=orjson.OPT_INDENT_2), f"{name}.json", "application/json")
    else:
        found = await s.do(downloads.download_report, run.id)
        content = await aside(lambda: b"".join(found.read(0, found.size_bytes)))
        ui.download.content(content, f"{name}.html", "text/html")


class Cases:
    """Held-out examples, some at a time."""

    def __init__(self, s: Session, run_id: str) -> None:
        self.s, self.run_id = s, run_id
        self.order: Order = "best"
        self.offset = 0
        with card(s.t("proof.cases")) as self.card:
            paragraph(s.t("proof.cases_text"), "dl-muted dl-small")
            names = {"best": s.t("proof.best"), "worst": s.t("proof.worst"), "file": s.t("proof.file")}
            with box("dl-row dl-noprint"):
                segmented(names, self.order, guarded(s, self._reorder), s.t("proof.cases"))
            self.place = box("dl-col wide")

    async def _reorder(self, order: Order) -> None:
        self.order = order
        await self.turn(0)

    async def turn(self, offset: int) -> None:
        """Show the cases from `offset` on."""
        s = self.s
        found = await s.do(proofs.list_cases, self.run_id, order=self.order, offset=offset, limit=CASES)
        self.offset = offset
        self.place.clear()
        with self.place:
            if not found.items:
                paragraph(s.t("proof.none"), "dl-muted")
            for item in found.items:
                case(s, item)
            if found.total > CASES:
                with box("dl-row between dl-noprint"):
                    Text(f"{offset + 1}\u2013{min(offset + CASES, found.total)} / {found.total}", "span", "dl-small dl-muted")
                    with box("dl-row"):
                        if offset:
                            button(s.t("basic.previous"), guarded(s, partial(self.turn, offset - CASES)), classes="small")
                        if offset + CASES < found.total:
                            button(s.t("basic.next"), guarded(s, partial(self.turn, offset + CASES)), classes="small")
