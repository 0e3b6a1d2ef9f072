"""Base models, and the versions of own models with where they came from."""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

from danlu.services.platform import chat, models, runs
from danlu.services.platform.models import BaseModelChoice, Lineage
from danlu.store.projects import Project
from danlu.store.runs import Model
from danlu.web.components.elements import Text, badge, box, button, card, fold, link, moment, no_project, paragraph, state_badge
from danlu.web.components.fit_badge import facts, fit_badge, fit_sentence
from danlu.web.components.messages import confirm, guarded
from danlu.web.rights import Rights, rights_in
from danlu.web.session import Session
from danlu.web.template import page

SHOWN = 100


@page("/models", title="models.title", nav="models")
async def show(s: Session) -> None:
    """The catalogue, and what was kept in this project."""
    project = await s.project()
    rights = await rights_in(s, project.id) if project is not None else None
    with box("dl-col"):
        Text(s.t("models.title"), "h1")
        paragraph(s.t("models.intro"), "dl-sub")
    with card(s.t("models.base"), "flush"):
        paragraph(s.t("models.base_text"), "dl-muted dl-small").style("padding: 0 16px 12px")
        with box("dl-list", "ul"):
            for base in await s.do(models.list_base_models):
                _base(s, base, project, rights)
        with box().style("padding: 4px 16px 12px"), fold(s.t("models.add")), box("dl-col"):
            for key in ("add_folder", "add_hub", "add_path"):
                paragraph(s.t(f"models.{key}"), "dl-muted dl-small")
    if project is None or rights is None:
        no_project(s, "layers")
        return
    found = await s.do(models.list_models, project.id, limit=SHOWN)
    with card(s.t("models.own"), "flush"):
        if not found.items:
            with box("dl-col").style("padding: 0 16px 16px"):
                paragraph(s.t("models.own_empty"), "dl-muted")
                with box("dl-row"):
                    button(s.t("shell.nav_runs"), href="/runs", classes="small")
        with box("dl-list", "ul"):
            for model in found.items:
                _line(s, model, rights)


def _base(s: Session, base: BaseModelChoice, project: Project | None, rights: Rights | None) -> None:
    with box("", "li"):
        with box(), box("dl-row"):
            Text(base.name, "span", "dl-strong dl-text").props("translate=no")
            if base.is_embedded:
                badge(s.t("models.embedded"))
            fit_badge(s, base)
            Text(facts(s, base), "span", "dl-muted dl-small")
        if project is not None and rights is not None:
            named = f"project={project.id}&{{}}={quote(base.name, safe='/')}"
            with box("dl-row"):
                why_not = fit_sentence(s, base) if base.problem is not None else None
                if rights.may(runs.submit_run):
                    button(s.t("models.train"), href=f"/new-run?{named.format('base')}", classes="small", why_not=why_not)
                if rights.may(chat.answer):
                    button(s.t("shell.nav_chat"), href=f"/chat?{named.format('model')}", classes="small")


def _line(s: Session, model: Model, rights: Rights) -> None:
    async def delete() -> None:
        if await confirm(s, s.t("models.delete_title"), s.t("models.delete_text"), do=s.t("models.delete"), danger=True):
            await s.do(models.delete_model, model.id)
            line.delete()

    async def origin() -> None:
        if origins.default_slot.children:
            origins.clear()
            return
        found = await s.do(models.get_lineage, model.id)
        with origins:
            _origin(s, found)

    with box("", "li") as line:
        with box():
            Text(f"{model.name}@{model.number}", "span", "dl-strong dl-text").props("translate=no")
            with box("dl-row dl-small dl-muted"):
                if model.verdict:
                    state_badge(s, model.verdict)
                Text(s.t("models.export_adapter" if model.kind == "adapter" else "models.whole"))
                moment(model.created_at)
        with box("dl-row"):
            button(s.t("models.origin"), guarded(s, origin), classes="small")
            if rights.may(chat.answer):
                button(s.t("shell.nav_chat"), href=f"/chat?project={model.project_id}&model={model.run_id}", classes="small")
            if rights.may(models.delete_model):
                button(s.t("models.delete"), guarded(s, partial(delete)), classes="small danger")
        origins = box().style("flex: 1 1 100%")


def _origin(s: Session, found: Lineage) -> None:
    """Where a model came from, and what was made of it."""
    method = found.recipe.get("method")
    data = found.dataset.name if found.dataset is not None else str(found.recipe.get("dataset", "")).rpartition("/")[2]
    with box("dl-pairs left", "dl"):
        for key, value in (("base_model", found.run.base_model.rpartition("/")[2]), ("data", data)):
            Text(s.t(f"models.{key}"), "dt")
            Text(value, "dd")
        Text(s.t("models.method"), "dt")
        Text(str(method.get("type")) if isinstance(method, dict) else str(method), "dd")
        for key, runs in (("column_run", [found.run]), ("rounds", found.rounds)):
            if runs:
                Text(s.t(f"models.{key}"), "dt")
                with box("", "dd"), box("dl-row"):
                    for run in runs:
                        link(run.name or run.id, f"/runs/{run.id}")
        if found.exports:
            Text(s.t("models.exports"), "dt")
            with box("", "dd"):
                link(s.t("models.num_exports", count=len(found.exports)), f"/exports?project={found.model.project_id}")
