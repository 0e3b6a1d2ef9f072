"""What REST adds to operations: ETags, idempotency keys, paging, problems."""

from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient

from danlu.api.app import create_app
from danlu.services.platform import jobs, projects, receipts, runs
from danlu.services.platform.access import Actor
from danlu.services.platform.operations import OPERATIONS
from danlu.services.platform.platform import Platform
from danlu.store import receipts as stored

RECIPE = {"base_model": "danlu/tiny", "dataset": "zhangjiajie"}
API = "/api/v1"


def test_every_operation_has_a_route_and_the_description_is_served(client: TestClient) -> None:
    paths = client.get(f"{API}/openapi.json").json()["paths"]

    offered = {entry["operationId"] for methods in paths.values() for entry in methods.values()}
    assert set(OPERATIONS) <= offered


def test_an_error_is_a_problem_with_what_why_and_fix(client: TestClient) -> None:
    answer = client.get(f"{API}/projects/prj_nothing")

    told = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert {name: told[name] for name in ("type", "status", "code")} == {"type": "urn:danlu:error:DL710", "status": 404, "code": "DL710"}
    assert told["detail"] and told["why"] and told["fix"] and told["request_id"] == answer.headers["x-request-id"]


def test_every_mistake_of_a_request_is_told_with_its_place_and_without_its_value(client: TestClient) -> None:
    answer = client.post(f"{API}/projects", json={"name": "", "description": 7, "owner": "secret value"})

    assert answer.status_code == 422
    assert [mistake["path"] for mistake in answer.json()["errors"]] == ["body.name", "body.description", "body.owner"]
    assert "secret value" not in answer.text


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/nothing", "/api/v1/projects/../../etc/passwd", "/api/v1/projects/%00"])
def test_an_address_that_does_not_exist_is_a_problem_too(client: TestClient, path: str) -> None:
    answer = client.get(path)

    assert (answer.status_code in (404, 422), answer.headers["content-type"]) == (True, "application/problem+json")


def test_pages_on_the_same_application_do_not_take_the_addresses_of_the_api(platform: Platform) -> None:
    app = create_app(platform)
    app.mount("/", lambda scope, receive, send: PlainTextResponse("a page")(scope, receive, send))
    client = TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50_000))

    answers = [client.get("/api/v1/nothing"), client.post("/api/nothing"), client.put(f"{API}/projects"), client.get(f"{API}/projects"), client.get("/nothing")]
    assert [answer.status_code for answer in answers] == [404, 404, 405, 200, 200]
    assert {answer.headers["content-type"] for answer in answers[:3]} == {"application/problem+json"}


def test_a_wrong_method_names_the_right_ones(client: TestClient) -> None:
    answer = client.put(f"{API}/projects")

    assert (answer.status_code, answer.json()["code"], answer.headers["allow"]) == (405, "DL762", "POST")


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": NaN}',
        b'{"name": "\\ud800"}',
        b'{"name": "a\\u0000b"}',
        b"[" * 100_000,
        b'{"name": ' + b"1" * 100_000 + b"}",
        b"",
        b"\xff\xfe",
        b'{"name": "a"',
    ],
    ids=["NaN", "half a character", "NUL", "nested", "digits", "empty", "not UTF-8", "cut"],
)
def test_a_body_that_is_not_json_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post(f"{API}/projects", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code in (400, 422)
    assert client.get(f"{API}/projects").json() == {"items": [], "next": None}


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", f"limit={10**40}", "after=%00", "after=" + "a" * 2000])
def test_options_out_of_bounds_are_refused(client: TestClient, query: str) -> None:
    assert client.get(f"{API}/projects?{query}").status_code == 422


def test_what_has_not_changed_is_not_sent_again(client: TestClient, project_id: str) -> None:
    first = client.get(f"{API}/projects/{project_id}")
    again = client.get(f"{API}/projects/{project_id}", headers={"If-None-Match": f'"x", W/{first.headers["etag"]}'})
    listed = client.get(f"{API}/projects")
    listed_again = client.get(f"{API}/projects", headers={"If-None-Match": listed.headers["etag"]})

    assert (first.headers["etag"], again.status_code, again.content) == ('"1"', 304, b"")
    assert (listed_again.status_code, listed_again.content) == (304, b"")


def test_a_change_of_an_older_version_is_refused(client: TestClient, project_id: str) -> None:
    path = f"{API}/projects/{project_id}"

    assert client.patch(path, json={"name": "q"}, headers={"If-Match": '"1"'}).headers["etag"] == '"2"'
    outdated = client.patch(path, json={"name": "r"}, headers={"If-Match": '"1"'})
    assert (outdated.status_code, outdated.json()["code"]) == (412, "DL761")
    assert client.patch(path, json={"name": "r"}, headers={"If-Match": "nonsense"}).status_code == 412
    assert client.patch(path, json={"name": "r"}, headers={"If-Match": "*"}).json()["name"] == "r"


def test_pages_lead_to_the_next_one(client: TestClient) -> None:
    made = [client.post(f"{API}/projects", json={"name": f"p{number}"}).json()["id"] for number in range(5)]

    seen, path = [], f"{API}/projects?limit=2"
    while path:
        answer = client.get(path)
        seen += [item["id"] for item in answer.json()["items"]]
        path = answer.links["next"]["url"] if "next" in answer.links else ""
    assert seen == sorted(made, reverse=True)


def test_the_same_key_gives_the_same_answer_and_does_it_once(client: TestClient, project_id: str) -> None:
    ask = {"url": f"{API}/projects/{project_id}/runs", "json": {"recipe": RECIPE}, "headers": {"Idempotency-Key": "k1"}}
    first, again = client.post(**ask), client.post(**ask)

    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert (again.headers["idempotency-replayed"], again.headers["etag"]) == ("true", first.headers["etag"])
    assert len(client.get(f"{API}/projects/{project_id}/runs").json()["items"]) == 1


def test_a_key_stands_for_one_request(client: TestClient, project_id: str) -> None:
    headers = {"Idempotency-Key": "k1"}
    client.post(f"{API}/projects", json={"name": "a"}, headers=headers)

    assert client.post(f"{API}/projects", json={"name": "b"}, headers=headers).status_code == 422
    assert client.post(f"{API}/projects/{project_id}/runs", json={"recipe": RECIPE}, headers=headers).status_code == 422
    assert client.post(f"{API}/projects", json={"name": "a"}, headers={"Idempotency-Key": "two words"}).status_code == 422


def test_a_refused_request_leaves_its_key_free(client: TestClient, project_id: str) -> None:
    ask = {"url": f"{API}/projects/{project_id}/runs", "headers": {"Idempotency-Key": "k1"}}

    assert client.post(**ask, json={"recipe": {"base_model": "danlu/tiny"}}).status_code == 400
    assert client.post(**ask, json={"recipe": RECIPE}).status_code == 201


def test_equal_requests_at_the_same_time_are_done_once(client: TestClient) -> None:
    def ask(_: int) -> int:
        return client.post(f"{API}/projects", json={"name": "a"}, headers={"Idempotency-Key": "k"}).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask, range(16)))

    assert set(statuses) <= {201, 409} and 201 in statuses
    assert len(client.get(f"{API}/projects").json()["items"]) == 1


def test_a_receipt_without_an_answer_of_a_killed_server_does_not_block_its_key(platform: Platform, client: TestClient) -> None:
    body = {"name": "a", "description": ""}
    request = orjson.dumps(["POST", f"{API}/projects", {}, body], option=orjson.OPT_SORT_KEYS)
    receipt = receipts.KeyReceipt("", "k", request, lambda result: {})
    with platform.database.writing() as connection:
        receipt.begin(connection)
    receipt.leave()  # as a kill does: the row stays, the process is gone

    assert client.post(f"{API}/projects", json=body, headers={"Idempotency-Key": "k"}).status_code == 201
    with platform.database.reading() as connection:
        found = stored.find(connection, "", "k")
    assert found is not None and found.response is not None


def test_what_an_operation_does_and_its_receipt_are_one_transaction(platform: Platform) -> None:
    class Killed(BaseException):
        pass

    def dies(result: object) -> dict[str, object]:
        raise Killed

    receipt = receipts.KeyReceipt("", "k", b"request", dies)
    with pytest.raises(Killed):
        projects.create_project.once(receipt, platform, Actor.local(), projects.NewProject(name="a"))

    with platform.database.reading() as connection:
        assert stored.find(connection, "", "k") is None
    assert projects.list_projects(platform, Actor.local()).items == []


def test_the_log_of_a_job_is_read_in_parts(client: TestClient, platform: Platform, project_id: str) -> None:
    run = client.post(f"{API}/projects/{project_id}/runs", json={"recipe": RECIPE}).json()
    job = client.get(f"{API}/runs/{run['id']}/jobs").json()[0]
    folder = platform.job_folder(job["id"]) / "attempt-1"
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("训练开始\n" * 10, "utf-8")

    part = client.get(f"{API}/jobs/{job['id']}/log", params={"attempt": 1, "limit": 20}).json()
    assert part == {"text": "训练开始\n训练", "next": 19, "is_over": False}
    assert jobs.get_job(platform, Actor.local(), job["id"]).state == "queued"


def test_a_kill_while_a_run_is_submitted_or_before_it_is_answered_does_not_submit_it_twice(platform: Platform) -> None:
    class Killed(BaseException):
        pass

    class Dies(receipts.KeyReceipt):
        def end(self, connection: object, result: object) -> None:
            super().end(connection, result)  # type: ignore[arg-type]
            raise Killed  # before the transaction that submits the run is committed

    def submit(receipt: receipts.KeyReceipt) -> str:
        return runs.submit_run.once(receipt, platform, owner, project.id, runs.NewRun(recipe=RECIPE)).id

    owner = Actor.local()
    project = projects.create_project(platform, owner, projects.NewProject(name="p"))
    asked = ("", "k", b"request", lambda run: {"id": run.id})
    first = Dies(*asked)
    with pytest.raises(Killed):
        submit(first)
    first.leave()
    assert runs.list_runs(platform, owner, project.id).items == []

    submitted = submit(receipts.KeyReceipt(*asked))  # and killed before its answer has left
    with pytest.raises(receipts.AlreadyDoneError) as again:
        submit(receipts.KeyReceipt(*asked))
    assert [run.id for run in runs.list_runs(platform, owner, project.id).items] == [again.value.response["id"]] == [submitted]
