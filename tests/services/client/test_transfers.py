"""Files in and out: whole or not at all, going on where they were cut; numbers of a run as they come."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from danlu import Studio
from danlu.client import transfers
from danlu.client.events import Happening, messages
from danlu.client.transfers import save
from danlu.errors import ConflictError, DataError, NotFoundError, ServerError, StorageError
from danlu.services.platform.downloads import Download
from danlu.services.platform.platform import Platform
from danlu.services.platform.uploads import NewUpload
from danlu.store import measurements
from danlu.store.measurements import Point, Read

RECIPE = {"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(transfers, "CHUNK_BYTES", 1000)
    return 1000


def test_a_file_becomes_a_dataset_and_its_next_version(studio: Studio, rows_file: Path, tmp_path: Path, small_chunks: int) -> None:
    first = studio.datasets.add(rows_file, name="doors")
    (tmp_path / "more.jsonl").write_bytes(rows_file.read_bytes() + b'\n{"instruction": "Who?", "output": "You."}')
    second = studio.datasets.add(tmp_path / "more.jsonl", name="doors")

    assert (first.ref, second.ref, str(second), second.id) == ("doors@1", "doors@2", "doors@2", first.id)
    assert first.newest.digest == hashlib.sha256(rows_file.read_bytes()).hexdigest() and first.newest.size_bytes == rows_file.stat().st_size
    assert save(studio.datasets.download_version(second.newest.id), tmp_path / "back.jsonl").read_bytes() == (tmp_path / "more.jsonl").read_bytes()
    assert studio.datasets.get(first.id).ref == "doors@2" and [one.name for one in studio.datasets.list().items] == ["doors"]
    assert studio.runs.submit({**RECIPE, "dataset": first.ref}).record.dataset_version_id == first.newest.id


def test_an_upload_that_was_cut_is_gone_on_with(studio: Studio, rows_file: Path, small_chunks: int) -> None:
    content, project = rows_file.read_bytes(), studio.project_id()
    announced = NewUpload(file_name=rows_file.name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    cut = studio.uploads.begin(project, announced)
    studio.transport.append(cut.id, 0, content[:700], hashlib.sha256(content[:700]).hexdigest())

    made = studio.datasets.add(rows_file)

    assert made.newest.digest == announced.sha256
    assert [one.id for one in studio.uploads.list(project).items] == [cut.id]


def test_a_chunk_at_the_wrong_place_is_refused_and_changes_nothing(studio: Studio, rows_file: Path) -> None:
    content = rows_file.read_bytes()
    upload = studio.uploads.begin(studio.project_id(), NewUpload(file_name="a.jsonl", size_bytes=len(content)))

    with pytest.raises(ConflictError, match="stands at 0, not at 5"):
        studio.transport.append(upload.id, 5, content[:10], hashlib.sha256(content[:10]).hexdigest())
    with pytest.raises(ValueError, match="damaged"):
        studio.transport.append(upload.id, 0, content[:10], "0" * 64)

    assert studio.uploads.get(upload.id).received_bytes == 0


def test_a_file_that_is_not_there_is_said(studio: Studio, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        studio.datasets.add(tmp_path / "none.jsonl")


def test_the_report_is_written_whole(studio: Studio, platform: Platform, tmp_path: Path) -> None:
    run = studio.runs.submit(RECIPE, name="first")
    with pytest.raises(NotFoundError):
        run.save_report(tmp_path / "report.html")
    page = platform.run_folder(run.id) / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("<!doctype html>丹炉" * 50_000, "utf-8")

    written = run.save_report(tmp_path / "out/report.html")

    assert written.read_bytes() == page.read_bytes() and [path.name for path in written.parent.iterdir()] == ["report.html"]
    assert studio.runs.download_report(run.id).file_name == "first report.html"
    page.write_bytes(b"")
    assert run.save_report(tmp_path / "empty.html").read_bytes() == b""


def cut_download(content: bytes, cuts: int, asked: list[int]) -> Download:
    """A download whose connection is lost `cuts` times, each time after 10 bytes."""
    left = [cuts]

    def read(start: int, length: int) -> Iterator[bytes]:
        asked.append(start)
        if left[0]:
            left[0] -= 1
            yield content[start : start + 10]
            raise ServerError("no answer", why="cut", fix="again")
        yield content[start : start + length]

    return Download("a.bin", len(content), "tag", read)


def test_a_download_that_is_cut_goes_on_where_it_was(tmp_path: Path) -> None:
    content, asked = bytes(range(100)), list[int]()

    save(cut_download(content, 7, asked), tmp_path / "a.bin")

    assert (tmp_path / "a.bin").read_bytes() == content
    assert asked == [0, 10, 20, 30, 40, 50, 60, 70]


def test_a_download_that_never_comes_leaves_no_file_but_what_came_is_used_the_next_time(tmp_path: Path) -> None:
    def nothing(start: int, length: int) -> Iterator[bytes]:
        raise ServerError("no answer", why="cut", fix="again")
        yield b""

    content, asked = bytes(range(100)), list[int]()
    half = Download("a.bin", 100, "tag", lambda start, length: iter([content[:60]]) if start == 0 else nothing(start, length))
    with pytest.raises(ServerError):
        save(half, tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()

    save(cut_download(content, 0, asked), tmp_path / "a.bin")

    assert asked == [60] and (tmp_path / "a.bin").read_bytes() == content and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_said_as_such(tmp_path: Path, small_file_limit: None) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        save(cut_download(b"x" * 10_000, 0, []), tmp_path / "a.bin")

    assert not (tmp_path / "a.bin").exists()


def test_each_measurement_is_told_once_as_it_comes(studio: Studio, platform: Platform) -> None:
    run = studio.runs.submit(RECIPE)
    told: list[dict[str, Any]] = []

    def add(*points: Point) -> None:
        with platform.database.writing() as connection:
            measurements.store(connection, Read(run.id), list(points))

    def on_step(step: dict[str, Any]) -> None:
        told.append(step)
        if step == {"step": 1, "loss": 3.0}:
            add(Point(2, "train", {"loss": 2.0}), Point(1, "validation", {"validation_loss": 4.0}))
        elif "validation_loss" in step:
            studio.jobs.cancel(run.jobs()[0].id)

    add(Point(1, "train", {"loss": 3.0}))
    with pytest.raises(RuntimeError, match="is cancelled"):
        run.wait(on_step, poll_seconds=0.01)

    assert told == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 1, "validation_loss": 4.0}]
    followed = [(found.kind, found.fields.get("step")) for found in studio.runs.get(run.id).follow()]
    assert sorted(found for found in followed if found[0] == "point") == [("point", 1), ("point", 1), ("point", 2)]
    assert ("run", None) in followed


def test_an_event_stream_is_read_line_by_line_and_a_cut_message_is_left_out() -> None:
    lines = ["retry: 2000", "", ": still here", "", "id: 3.1", "event: point", 'data: {"step":', "data: 1}", "", "event: run", "data: {}", "", 'data: {"cut']

    assert list(messages(lines)) == [Happening("point", {"step": 1}, "3.1"), Happening("run", {})]


def test_a_stream_that_is_cut_is_taken_up_where_it_was(scripted: Any) -> None:
    from danlu.client.http import HttpTransport

    kind = {"Content-Type": "text/event-stream"}
    first = b'retry: 2000\n\nid: 1.0\nevent: log\ndata: {"text": "a"}\n\nid: 1.1\nevent: log\ndata: {"te'
    second = b'id: 1.1\nevent: log\ndata: {"text": "b"}\n\nevent: end\ndata: {}\n\n'
    server = scripted((200, kind, first), (200, kind, second))
    studio = Studio(HttpTransport(server.url, sleep=lambda seconds: None))

    assert "".join(studio.jobs.log("job_1", follow=True)) == "ab"
    assert [request[2].get("Last-Event-ID") for request in server.requests] == [None, "1.0"]
    assert [request[1] for request in server.requests] == ["/api/v1/jobs/job_1/log/stream"] * 2


def test_a_stream_of_something_that_is_not_there_ends_at_once(studio: Studio) -> None:
    with pytest.raises(NotFoundError):
        list(studio.jobs.log("job_" + "0" * 26, follow=True))
