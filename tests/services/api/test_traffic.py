"""Around requests: ids, the log, the last handler, health and metrics."""

import logging
import shutil
import time

import pytest
from fastapi.testclient import TestClient

from danlu.api.app import create_app
from danlu.services.platform import operations, system
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.store import jobs, workers
from danlu.store.projects import PROJECTS

OWNER = Actor.local()


def register_worker(platform: Platform, *, heartbeat_at: float, home: str = workers.ONLY_HOME) -> None:
    with platform.database.writing() as connection:
        workers.register(connection, workers.Worker(f"wrk_{home[:3]}", "host", home, str(platform.home), 1, 1, 1, heartbeat_at, heartbeat_at))


def test_a_request_keeps_its_id_and_bad_ones_are_replaced(client: TestClient) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert client.get("/healthz", headers={"X-Request-ID": "a b\x7f"}).headers["x-request-id"] != "a b\x7f"


def test_the_log_names_the_route_and_nothing_that_was_sent(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="danlu.access"):
        client.post("/api/v1/projects?token=hidden", json={"name": "a secret name"}, headers={"Authorization": "Bearer hidden"})

    (record,) = (one for one in caplog.records if one.name == "danlu.access")  # threads that other tests left may log, too
    assert (record.method, record.status) == ("POST", 401)  # type: ignore[attr-defined]
    assert "hidden" not in str(vars(record)) and "secret name" not in str(vars(record))


def test_a_defect_is_a_problem_with_a_code_and_its_traceback_is_only_in_the_log(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(platform)

    @app.get("/crash")
    def crash() -> None:
        raise KeyError("row with private text")

    answer = TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50_000)).get("/crash")

    assert (answer.status_code, answer.json()["code"]) == (500, "DL900")
    assert "private text" not in answer.text
    assert "KeyError" in caplog.text


def test_health_says_that_the_process_lives_and_readiness_what_is_missing(client: TestClient, platform: Platform) -> None:
    assert client.get("/healthz").json() == {"is_alive": True}
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"is_ready": False, "checks": {"database": True, "migrations": True, "worker": False, "disk": True}})

    register_worker(platform, heartbeat_at=time.time())
    assert system.readiness(platform).is_ready


def test_readiness_survives_a_database_that_is_away(platform: Platform) -> None:
    platform.database.close()
    for name in ("danlu.sqlite", "danlu.sqlite-wal", "danlu.sqlite-shm"):
        (platform.home / name).unlink(missing_ok=True)
    (platform.home / "danlu.sqlite").mkdir()

    assert system.readiness(platform).checks["database"] is False


def test_metrics_count_requests_by_template_and_tell_the_queue(client: TestClient, platform: Platform) -> None:
    for number in range(3):
        client.get(f"/api/v1/projects/prj_{number}")
    register_worker(platform, heartbeat_at=time.time() - 100)
    text = client.get("/metrics").text

    assert 'danlu_requests_total{method="GET",route="/projects/{project_id}",status="404"} 3.0' in text
    assert 'danlu_jobs{state="queued"} 0.0' in text
    names = ("queue_age_seconds", "disk_free_bytes", "memory_available_bytes", "server_rss_bytes", "worker_heartbeat_age_seconds", "request_seconds_bucket")
    assert [name for name in names if f"danlu_{name}" not in text] == []


def test_an_alarm_is_raised_once_and_cleared(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(platform.home)._replace(free=1000)
    with monkeypatch.context() as low:
        low.setattr(system.shutil, "disk_usage", lambda path: full)
        assert [(alarm.kind, alarm.cleared_at) for alarm in system.watch(platform)] == [("disk", None)]
        assert system.watch(platform) == []
        assert [alarm.kind for alarm in system.get_system_status(platform, OWNER).alarms] == ["disk"]
    assert [alarm.cleared_at is not None for alarm in system.watch(platform)] == [True]
    assert system.get_system_status(platform, OWNER).alarms == []
    assert [alarm.fields["free_bytes"] for alarm in system.list_alarms(platform, OWNER).items] == [1000]


def test_a_queue_without_a_worker_raises_an_alarm(platform: Platform) -> None:
    with platform.database.writing() as connection:
        project = PROJECTS.insert(connection, name="p", description="", created_by=None, is_archived=False)
        jobs.submit(connection, project_id=project.id, kind="inspect", payload={"type": "inspect"})

    assert [alarm.kind for alarm in system.watch(platform)] == ["worker"]
    register_worker(platform, heartbeat_at=time.time(), home="another one, which does not take this job")
    assert system.watch(platform) == []
    register_worker(platform, heartbeat_at=time.time())
    assert [alarm.cleared_at is not None for alarm in system.watch(platform)] == [True]
    assert system.get_system_status(platform, OWNER).jobs["queued"] == 1


def test_every_operation_that_is_served_is_in_the_list_of_operations() -> None:
    assert {"get_system_status", "list_alarms", "download_report"} <= set(operations.load_all())
