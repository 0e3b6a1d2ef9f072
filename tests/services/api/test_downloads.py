"""Downloads: parts, changed files, names, and nothing that runs in the studio's name."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from danlu.api.downloads import disposition
from danlu.services.platform.platform import Platform
from danlu.store.projects import PROJECTS
from danlu.store.runs import RUNS

CONTENT = b"<script>alert(1)</script>" + bytes(range(256)) * 2000


@pytest.fixture
def report(platform: Platform) -> tuple[str, Path]:
    """Address of a run's report, and its file."""
    with platform.database.writing() as connection:
        project = PROJECTS.insert(connection, name="p", description="", created_by=None, is_archived=False)
        run = RUNS.insert(connection, project_id=project.id, name='报告 "1"\r\n', state="succeeded", recipe={}, base_model="m")
    path = platform.run_folder(run.id) / "report.html"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    return f"/api/v1/runs/{run.id}/report.html", path


def test_a_report_is_shown_in_a_sandbox(client: TestClient, report: tuple[str, Path]) -> None:
    answer = client.get(report[0])

    assert answer.content == CONTENT
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none';")
    assert "allow-same-origin" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"] == ("inline; filename=\"__ _1_ report.html\"; filename*=UTF-8''%E6%8A%A5%E5%91%8A%20%221%22%20report.html")


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-9", 0, 10), ("bytes=100-", 100, len(CONTENT)), ("bytes=-7", len(CONTENT) - 7, len(CONTENT)), ("bytes=5-99999999", 5, len(CONTENT))],
)
def test_a_part_is_sent(client: TestClient, report: tuple[str, Path], asked: str, start: int, end: int) -> None:
    answer = client.get(report[0], headers={"Range": asked})

    assert (answer.status_code, answer.content) == (206, CONTENT[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"


@pytest.mark.parametrize("asked", ["bytes=9-5", "bytes=99999999-", "bytes=-0"])
def test_a_part_behind_the_end_is_refused(client: TestClient, report: tuple[str, Path], asked: str) -> None:
    answer = client.get(report[0], headers={"Range": asked})

    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(CONTENT)}")


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=a-b"])
def test_what_is_no_single_part_gives_the_whole_file(client: TestClient, report: tuple[str, Path], asked: str) -> None:
    assert client.get(report[0], headers={"Range": asked}).content == CONTENT


def test_a_file_that_has_changed_is_not_continued(client: TestClient, report: tuple[str, Path]) -> None:
    tag = client.get(report[0]).headers["etag"]
    same = client.get(report[0], headers={"Range": "bytes=5-", "If-Range": tag})
    assert client.get(report[0], headers={"If-None-Match": tag}).status_code == 304
    report[1].write_bytes(CONTENT + b"!")
    changed = client.get(report[0], headers={"Range": "bytes=5-", "If-Range": tag})

    assert (same.status_code, changed.status_code, changed.content) == (206, 200, CONTENT + b"!")


def test_a_report_that_is_not_made_yet_is_not_found(client: TestClient, report: tuple[str, Path]) -> None:
    report[1].unlink()

    assert client.get(report[0]).status_code == 404


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "attachment; filename=\"passwd\"; filename*=UTF-8''passwd"),
        ("..\\..\\con.exe", "attachment; filename=\"con.exe\"; filename*=UTF-8''con.exe"),
        ("", "attachment; filename=\"download\"; filename*=UTF-8''download"),
        ('a"; x="b\r\nSet-Cookie: y', "attachment; filename=\"a__ x__bSet-Cookie_ y\"; filename*=UTF-8''a%22%3B%20x%3D%22bSet-Cookie%3A%20y"),
        ("张家界.jsonl", "attachment; filename=\"___.jsonl\"; filename*=UTF-8''%E5%BC%A0%E5%AE%B6%E7%95%8C.jsonl"),
    ],
)
def test_any_name_makes_a_safe_header(name: str, expected: str) -> None:
    assert disposition(name) == expected
