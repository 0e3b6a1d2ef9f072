"""Base models, and the versions of own models."""

from __future__ import annotations

from functools import partial

from danlu.services.platform import models
from danlu.store.runs import Model
from danlu.web import numbers
from danlu.web.components.elements import Text, badge, box, button, card, link, moment, paragraph, state_badge
from danlu.web.components.messages import confirm, guarded
from danlu.web.session import Session
from danlu.web.template import page

SHOWN = 100


@page("/models", title="models.title", nav="models")
async def show(s: Session) -> None:
    """The catalogue, and what was kept in this project."""
    project = await s.project()
    Text(s.t("models.title"), "h1")
    with card(s.t("models.base")):
        paragraph(s.t("models.base_text"), "dl-muted dl-small")
        with box("dl-col"):
            for base in await s.do(models.list_base_models):
                with box("dl-row between"):
                    with box("dl-row"):
                        Text(base.name, "span", "dl-strong")
                        if base.is_embedded:
                            badge(s.t("models.embedded"))
                    Text(numbers.size(base.size_bytes), "span", "dl-muted")
    if project is None:
        return
    found = await s.do(models.list_models, project.id, limit=SHOWN)
    with card(s.t("models.own"), "flush"):
        if not found.items:
            paragraph(s.t("models.own_empty"), "dl-muted").style("padding: 0 16px 16px")
        with box("dl-list", "ul"):
            for model in found.items:
                _line(s, model)


def _line(s: Session, model: Model) -> None:
    async def delete() -> None:
        if await confirm(s, s.t("models.delete_title"), s.t("models.delete_text"), do=s.t("models.delete"), danger=True):
            await s.do(models.delete_model, model.id)
            line.delete()

    with box("", "li") as line:
        with box():
            Text(f"{model.name}@{model.number}", "span", "dl-strong")
            with box("dl-row dl-small dl-muted"):
                if model.verdict:
                    state_badge(s, model.verdict)
                Text(s.t("models.export_adapter" if model.kind == "adapter" else "models.own_whole"))
                moment(model.created_at)
        with box("dl-row"):
            link(s.t("models.column_run"), f"/runs/{model.run_id}")
            button(s.t("shell.nav_chat"), href=f"/chat?project={model.project_id}&model={model.run_id}", classes="small")
            button(s.t("models.delete"), guarded(s, partial(delete)), classes="small danger")
