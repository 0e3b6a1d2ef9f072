"""What is running, what waits for you, and your projects."""

from __future__ import annotations

from nicegui import ui

from danlu.services.platform import datasets, jobs, projects, runs
from danlu.services.platform.datasets import NewDataset
from danlu.services.platform.projects import NewProject
from danlu.services.platform.views import Draft, get_draft, save_draft
from danlu.store.jobs import Job
from danlu.store.projects import Project
from danlu.store.runs import Run
from danlu.web.components.elements import Text, box, button, card, empty, link, moment, paragraph, state_badge
from danlu.web.components.fields import text_field
from danlu.web.components.jobs import JobLine
from danlu.web.components.messages import guarded
from danlu.web.components.tour import tour
from danlu.web.live import Lines, queue_key, refresh_every
from danlu.web.session import Session
from danlu.web.template import asset, page

EXAMPLE = "danlu/zhangjiajie"
LISTED = 6
WAITING = ("paused", "failed", "succeeded")


@page("/", title="home.title", nav="home")
async def show(s: Session) -> None:
    """Home."""
    found = await s.projects()
    with box("dl-head"):
        with box("dl-col"):
            Text(s.t("home.title"), "h1")
            paragraph(s.t("home.intro"), "dl-sub")
        if found:
            button(s.t("shell.nav_new_run"), href="/new-run", classes="primary", symbol="add")._props["data-tour"] = "start"
    if not s.view.has_seen_tour:
        tour(s, {name: asset(name) for name in ("tour.css", "tour.js")}, is_empty=not found)
    if not found:
        _first(s)
        return
    with box("dl-grid2"):
        with card(s.t("home.active"), "flush"):
            names: dict[str, str] = {}

            async def read() -> list[Job]:
                queue = await s.do(jobs.list_queue)
                for job in queue[:LISTED]:
                    if job.run_id is not None and job.run_id not in names:
                        names[job.run_id] = (await s.do(runs.get_run, job.run_id)).name
                return queue

            nothing = paragraph(s.t("home.active_none"), "dl-muted").style("padding: 0 16px 16px")
            lines: Lines[Job, JobLine] = Lines(box("dl-list", "ul"), lambda job: JobLine(s, job, names.get(job.run_id or "", "")))

            def tell(queue: list[Job]) -> None:
                nothing.set_visibility(not queue)
                for job, line in lines.show(queue[:LISTED]):
                    line.tell(job)

            await refresh_every(2.0, read, tell, queue_key)
        await _waiting(s, found)
    with card(s.t("home.projects"), "flush"):
        with box("dl-list", "ul"):
            for project in found[:LISTED]:
                await _project(s, project)
        with box().style("padding: 12px 16px; border-top: 1px solid var(--line)"):
            await _new_project(s)


def _first(s: Session) -> None:
    async def example() -> None:
        made = await s.do(projects.create_project, NewProject(name=s.t("home.example_project")))
        await s.prefer(project_id=made.id)
        dataset = await s.do(datasets.create_dataset, made.id, NewDataset(example=EXAMPLE))
        ui.navigate.to(f"/datasets/{dataset.id}")

    with empty("auto_awesome", s.t("home.first_title"), s.t("home.first_text")):
        button(s.t("home.example"), guarded(s, example), classes="primary")._props["data-tour"] = "start"
    with card(s.t("home.new_project")):
        paragraph(s.t("home.project_text"), "dl-muted")
        _project_form(s, "")


async def _new_project(s: Session) -> None:
    draft = await s.do(get_draft, "project")
    _project_form(s, str(draft.values.get("name", "")))


def _project_form(s: Session, name: str) -> None:
    async def create() -> None:
        text = str(field.value or "").strip()
        if not text:
            field.run_method("focus")
            return
        made = await s.do(projects.create_project, NewProject(name=text[:200]))
        await s.do(save_draft, "project", Draft())
        await s.prefer(project_id=made.id)
        ui.navigate.to("/runs")

    async def keep() -> None:
        await s.do(save_draft, "project", Draft(values={"name": str(field.value)[:200]} if field.value else {}))

    with box("dl-row"):
        field = text_field(s.t("home.name"), name, maxlength=200)
        field.on("keydown.enter", guarded(s, create), [])
        field.on("blur", guarded(s, keep), [])
        button(s.t("home.create"), guarded(s, create))


async def _waiting(s: Session, found: list[Project]) -> None:
    """Runs that came to an end or were held, newest first, one for each project at least."""
    waiting: list[Run] = []
    for project in found[:LISTED]:
        page = await s.do(runs.list_runs, project.id, limit=LISTED)
        waiting += [run for run in page.items if run.state in WAITING]
    waiting.sort(key=lambda run: -run.updated_at)
    with card(s.t("home.waiting"), "flush") as made:
        made._props["data-tour"] = "waiting"
        if not waiting:
            paragraph(s.t("home.waiting_none"), "dl-muted").style("padding: 0 16px 16px")
            return
        with box("dl-list", "ul"):
            for run in waiting[:LISTED]:
                with box("", "li"):
                    with box():
                        link(run.name, f"/runs/{run.id}", "dl-strong")
                        with box("dl-row dl-small dl-muted"):
                            state_badge(s, run.verdict or run.state)
                            moment(run.finished_at or run.updated_at)
                    target = f"/runs/{run.id}/proof" if run.state == "succeeded" else f"/runs/{run.id}"
                    button(s.t(f"home.next_{run.state}"), href=target, classes="small")


async def _project(s: Session, project: Project) -> None:
    with box("", "li"):
        with box():
            link(project.name, f"/runs?project={project.id}", "dl-strong")
            if project.description:
                Text(project.description[:120], "div", "dl-small dl-muted dl-clip")
            with box("dl-small dl-muted"):
                moment(project.updated_at)
        button(s.t("shell.nav_runs"), href=f"/runs?project={project.id}", classes="small")
