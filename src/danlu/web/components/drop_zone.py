"""A place to drop a data file; it becomes a dataset, or a new version of one."""

from __future__ import annotations

import base64
import binascii
from functools import partial
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from danlu.data.doors import HEAD_BYTES, Door, door_of
from danlu.errors import DanluError, UploadError, error_from
from danlu.services.platform import uploads
from danlu.services.platform.file_names import safe_file_name
from danlu.services.platform.uploads import MAX_UPLOAD_BYTES, NewUpload
from danlu.store.uploads import Upload
from danlu.web import numbers
from danlu.web.components.elements import Text, box, button, moment, paragraph
from danlu.web.components.messages import error_toast, guarded
from danlu.web.session import Session

ACCEPTED = ".jsonl,.ndjson,.json,.csv,.tsv,.xlsx,.parquet,.txt,.gz"
PLACES: dict[Door, str] = {"model": "/models", "recipe": "/new-run"}
"""Pages for what is no data but has a place in the studio."""
NAME_CHARS = 80


class DropZone(Element, component="drop_zone.js"):
    """Uploads go on where they stopped, by themselves and when the same file is dropped again."""

    def __init__(self, s: Session, project_id: str, dataset_id: str | None = None) -> None:
        super().__init__()
        self.session, self.project_id, self.dataset_id = s, project_id, dataset_id
        words = {
            name: s.t(f"datasets.drop_{name}")
            for name in (*("text", "waiting", "comparing", "busy", "finishing", "unreadable", "unreadable_fix", "unreadable_why"),)
        }
        self._props.update(label=s.t("datasets.drop"), words=words, accept=ACCEPTED, head=HEAD_BYTES, token=s.csrf_token)
        self.on("begin", guarded(s, self._begin))
        self.on("other", guarded(s, self._other))
        self.on("done", guarded(s, self._done))
        self.on("failed", self._failed)
        self.place = box()
        """Where it is told that a file belongs elsewhere."""

    async def _begin(self, event: GenericEventArguments) -> None:
        s, name, size = self.session, str(event.args["name"])[-10_000:] or "data", int(event.args["size"])
        self.place.clear()
        door = door_of(name, size, _head(event.args.get("head")))
        if door != "data":
            self.run_method("refuse")
            with self.place:
                _wrong_door(s, door, name)
            return
        if size > MAX_UPLOAD_BYTES:
            self.run_method("refuse")
            most = numbers.size(MAX_UPLOAD_BYTES)
            what, why, fix = (s.t(f"datasets.{key}", name=_short(name), most=most) for key in ("too_large", "too_large_why", "too_large_fix"))
            error_toast(s, UploadError(what, why=why, fix=fix))
            return
        try:
            upload = await self._open_one(safe_file_name(name), size) or await self._new(name, size)
        except DanluError:
            self.run_method("refuse")
            raise
        self.run_method("send", upload.id, upload.received_bytes)

    async def _open_one(self, file_name: str, size: int) -> Upload | None:
        """The upload of a file of this name and size that was begun and not finished; its content is compared before it goes on."""
        there = await self.session.do(uploads.list_uploads, self.project_id, limit=50)
        same = (file_name, size, self.dataset_id)
        return next((one for one in there.items if one.state == "open" and (one.file_name, one.size_bytes, one.dataset_id) == same), None)

    async def _new(self, name: str, size: int) -> Upload:
        return await self.session.do(uploads.begin_upload, self.project_id, NewUpload(file_name=name, size_bytes=size, dataset=self.dataset_id))

    async def _other(self, event: GenericEventArguments) -> None:
        """What was begun has other content: begin anew."""
        try:
            upload = await self._new(str(event.args["name"])[-10_000:] or "data", int(event.args["size"]))
        except DanluError:
            self.run_method("refuse")
            raise
        self.run_method("send", upload.id, 0)

    async def _done(self, event: GenericEventArguments) -> None:
        try:
            version = await self.session.do(uploads.finish_upload, str(event.args))
        except DanluError:
            self.run_method("refuse")
            raise
        ui.navigate.to(f"/datasets/{version.dataset_id}")

    def _failed(self, event: GenericEventArguments) -> None:
        told: dict[str, Any] = event.args
        known = {"code": UploadError.code, "what": str(told.get("detail", "")), "why": "", "fix": ""}  # a refusal by the server is a problem of REST
        error_toast(self.session, error_from(known | {name: str(told[name]) for name in known if name in told}))


async def open_uploads(s: Session, project_id: str, place: ui.element) -> None:
    """Uploads that were begun and not finished: the same file goes on where it stopped."""
    found = [one for one in (await s.do(uploads.list_uploads, project_id, limit=50)).items if one.state == "open" and one.received_bytes]

    async def give_up(one: Upload) -> None:
        await s.do(uploads.abandon_upload, one.id)
        await open_uploads(s, project_id, place)

    place.clear()
    with place:
        for one in found:
            with box("dl-note"):
                with box("dl-row between"):
                    Text(s.t("datasets.unfinished", name=_short(one.file_name), share=f"{one.received_bytes / one.size_bytes:.0%}"), "span", "dl-text")
                    moment(one.updated_at).classes("dl-muted dl-small")
                with box("dl-row between"):
                    Text(s.t("datasets.unfinished_text"), "span", "dl-muted dl-small")
                    button(s.t("datasets.give_up"), guarded(s, partial(give_up, one)), classes="small")


def _wrong_door(s: Session, door: Door, name: str) -> None:
    with box("dl-note warn").props("role=alert").style("margin-top: 12px"):
        Text(s.t(f"datasets.wrong_{door}", name=_short(name)), "div", "dl-strong dl-text")
        paragraph(s.t(f"datasets.wrong_{door}_fix"), "dl-text")
        if door in PLACES:
            with box("dl-row"):
                button(s.t(f"datasets.wrong_{door}_go"), href=PLACES[door], classes="small")


def _short(name: str) -> str:
    return name if len(name) <= NAME_CHARS else name[:NAME_CHARS] + "\u2026"


def _head(written: Any) -> bytes:
    try:
        return base64.b64decode(str(written or "")[: 2 * HEAD_BYTES])
    except binascii.Error:
        return b""
