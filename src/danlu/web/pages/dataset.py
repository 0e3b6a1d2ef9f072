"""One dataset: what the data doctor says, its rows, its versions, and what to do next."""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

from nicegui import ui
from pydantic import ValidationError

from danlu.errors import ConflictError, DanluError, NotFoundError
from danlu.services.platform import datasets, runs, sweeps, uploads
from danlu.services.platform.datasets import DatasetChange
from danlu.store.datasets import Dataset, DatasetVersion
from danlu.web import numbers
from danlu.web.components.data_doctor import DataDoctor
from danlu.web.components.drop_zone import DropZone
from danlu.web.components.elements import Text, box, button, card, fold, moment, note, paragraph
from danlu.web.components.fields import text_field
from danlu.web.components.messages import confirm, error_toast, guarded
from danlu.web.components.row_table import RowTable
from danlu.web.rights import Rights, rights_in
from danlu.web.session import Session
from danlu.web.template import page

VERSIONS = 50
SOON_SECONDS, LATER_SECONDS = 1.0, 4.0
"""How often the page looks for what has changed: while something is awaited, and else."""


@page("/datasets/{dataset_id}", title="datasets.title", nav="datasets")
async def show(s: Session) -> None:
    """The version in the address, else the newest."""
    dataset = await s.do(datasets.get_dataset, s.path("dataset_id"))
    versions = (await s.do(datasets.list_dataset_versions, dataset.id, limit=VERSIONS)).items
    wanted = s.query("version")
    version = next((one for one in versions if str(one.number) == wanted), versions[0])
    newest, rights = versions[0].number, await rights_in(s, dataset.project_id)
    with box("dl-head"):
        with box("dl-col"):
            Text(dataset.name, "h1")
            with box("dl-row dots dl-muted"):
                Text(s.t("datasets.version", number=version.number))
                Text(numbers.size(version.size_bytes))
                moment(version.created_at)
        with box("dl-row"):
            named = quote(f"{dataset.name}@{version.number}", safe="")
            if rights.may(runs.submit_run):
                button(s.t("datasets.next_train"), href=f"/new-run?project={dataset.project_id}&dataset={named}", classes="primary")
            if rights.may(sweeps.submit_sweep):
                button(s.t("sweeps.try_settings"), href=f"/sweeps/new?project={dataset.project_id}&dataset={named}")
    news = box("dl-col").props("role=status")
    table = RowTable(s, version, newest, rights)
    doctor = DataDoctor(s, version, newest, table=table, rights=rights)
    with card(s.t("datasets.preview"), "flush"):
        table.build()
        await table.turn(0)
    await doctor.look()
    _versions(s, dataset, version, versions, rights)
    _watch(s, version, newest, doctor, news)


def _watch(s: Session, version: DatasetVersion, newest: int, doctor: DataDoctor, news: ui.element) -> None:
    """Tell what others do meanwhile: the doctor, somebody who made a version, somebody who deleted all of it."""
    seen = {"newest": newest}

    async def look() -> None:
        try:
            await doctor.look()
            there = (await s.do(datasets.list_dataset_versions, version.dataset_id, limit=1)).items
        except NotFoundError:
            timer.cancel()
            _gone(s, news)
            return
        except DanluError as error:  # signed out, or the database is away: told once, and asked again
            error_toast(s, error)
            return
        timer.interval = SOON_SECONDS if doctor.is_waiting else LATER_SECONDS
        if there and there[0].number > seen["newest"]:
            seen["newest"] = there[0].number
            news.clear()
            with news, note(s.t("datasets.news_version", number=there[0].number), "accent"), box("dl-row"):
                button(s.t("datasets.newer_look"), href=f"/datasets/{version.dataset_id}", classes="small")

    timer = ui.timer(SOON_SECONDS, look, immediate=False)


def _gone(s: Session, news: ui.element) -> None:
    """The dataset was deleted while the page was open; what stands on it can still be read and copied."""
    news.clear()
    with news, note(s.t("datasets.news_gone_text"), "bad", s.t("datasets.news_gone")), box("dl-row"):
        button(s.t("datasets.title"), href="/datasets", classes="small")


def _versions(s: Session, dataset: Dataset, version: DatasetVersion, versions: list[DatasetVersion], rights: Rights) -> None:
    async def delete() -> None:
        if await confirm(s, s.t("datasets.delete_title"), s.t("datasets.delete_text"), do=s.t("datasets.delete"), danger=True):
            await s.do(datasets.delete_dataset, dataset.id)
            ui.navigate.to("/datasets")

    with card(s.t("datasets.versions")):
        with box("dl-col"):
            for one in versions:
                with box("dl-row between"):
                    with box("dl-row"):
                        made = Text(s.t("datasets.version", number=one.number), "a", "dl-strong" if one.id == version.id else "")
                        made._props["href"] = f"/datasets/{dataset.id}?version={one.number}"
                        Text(f"{one.file_name}, {numbers.size(one.size_bytes)}", "span", "dl-muted dl-small dl-text")
                    moment(one.created_at).classes("dl-muted dl-small")
        if rights.may(uploads.begin_upload):
            with fold(s.t("datasets.new_version")):
                DropZone(s, dataset.project_id, dataset.id)
        with box("dl-row"):
            if rights.may(datasets.change_dataset):
                button(s.t("datasets.rename"), guarded(s, partial(_rename, s, dataset)), classes="small")
            if rights.may(datasets.delete_dataset):
                button(s.t("datasets.delete"), guarded(s, delete), classes="small danger")


async def _rename(s: Session, dataset: Dataset) -> None:
    """Ask for another name; who was overtaken by somebody else's is told."""
    with ui.dialog() as dialog, box("dl-dialog").props("role=dialog aria-modal=true") as content:
        content._props["aria-label"] = s.t("datasets.rename")
        Text(s.t("datasets.rename"), "h2")
        paragraph(s.t("datasets.rename_text"), "dl-muted dl-small")
        field = text_field(s.t("datasets.column_name"), dataset.name, maxlength=200)

        async def save() -> None:
            name = str(field.value or "").strip()
            if name and name != dataset.name:
                try:
                    body = DatasetChange(name=name)
                except ValidationError as error:
                    told = error.errors()[0]["msg"]
                    raise ConflictError(f"{name[:60]!r} cannot be a name", why=told, fix="leave out line breaks and a number after @") from error
                await s.do(datasets.change_dataset, dataset.id, body, version=dataset.version)
                ui.navigate.reload()
            dialog.close()

        with box("dl-row"):
            button(s.t("datasets.rename"), guarded(s, save), classes="primary")
            button(s.t("basic.cancel"), dialog.close, classes="quiet")
    dialog.on("hide", dialog.delete, [])
    dialog.open()
