"""A place to drop a data file; it becomes a dataset, or a new version of one."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from danlu.errors import DanluError, UploadError
from danlu.services.platform import uploads
from danlu.services.platform.uploads import NewUpload
from danlu.web.components.messages import error_toast, guarded
from danlu.web.session import Session

ACCEPTED = ".jsonl,.json,.csv,.tsv,.xlsx,.parquet,.txt,.gz"
DOCUMENTS = (".pdf", ".doc", ".docx", ".ppt", ".pptx", ".md", ".html", ".htm", ".epub")
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp3", ".mp4", ".wav", ".zip", ".rar", ".7z")


class DropZone(Element, component="drop_zone.js"):
    """Uploads go on where they stopped when the same file is dropped again."""

    def __init__(self, s: Session, project_id: str, dataset_id: str | None = None) -> None:
        super().__init__()
        self.session, self.project_id, self.dataset_id = s, project_id, dataset_id
        self._props.update(
            label=s.t("datasets.drop"), text=s.t("datasets.drop_text"), accept=ACCEPTED, waiting=s.t("datasets.drop_waiting"), token=s.csrf_token
        )
        self.on("begin", guarded(s, self._begin))
        self.on("done", guarded(s, self._done))
        self.on("failed", self._failed)

    async def _begin(self, event: GenericEventArguments) -> None:
        s, name, size = self.session, str(event.args["name"]), int(event.args["size"])
        suffix = PurePath(name).suffix.lower()
        wrong = "document" if suffix in DOCUMENTS else "picture" if suffix in PICTURES else "empty" if not size else None
        if wrong is not None:
            self.run_method("refuse")
            error_toast(s, UploadError(s.t(f"datasets.wrong_{wrong}", name=name[:80]), why=s.t("datasets.wrong_why"), fix=s.t(f"datasets.wrong_{wrong}_fix")))
            return
        open_ones = await s.do(uploads.list_uploads, self.project_id, limit=50)
        same = [one for one in open_ones.items if one.state == "open" and (one.file_name, one.size_bytes, one.dataset_id) == (name, size, self.dataset_id)]
        if same:
            upload = same[0]
        else:
            try:
                upload = await s.do(uploads.begin_upload, self.project_id, NewUpload(file_name=name, size_bytes=size, dataset=self.dataset_id))
            except DanluError:
                self.run_method("refuse")
                raise
        self.run_method("send", upload.id, upload.received_bytes)

    async def _done(self, event: GenericEventArguments) -> None:
        version = await self.session.do(uploads.finish_upload, str(event.args))
        ui.navigate.to(f"/datasets/{version.dataset_id}")

    def _failed(self, event: GenericEventArguments) -> None:
        told: dict[str, Any] = event.args
        error_toast(self.session, UploadError(str(told.get("what")), why=str(told.get("why")), fix=str(told.get("fix"))))
