"""The client against a server that fails, lies, or leads elsewhere."""

import json
from typing import Any

import pytest

from danlu import Studio
from danlu.client.http import ATTEMPTS, HttpTransport
from danlu.errors import ConflictError, NoEffectError, ServerError, SignInError
from danlu.services.platform.projects import ProjectChange

PROJECT = {"id": "prj_1", "name": "p", "description": "", "created_by": None, "is_archived": False, "created_at": 1.0, "updated_at": 1.0, "version": 1}
MADE = (201, {}, json.dumps(PROJECT).encode())
READ = (200, {}, json.dumps(PROJECT).encode())
NONE = (200, {}, b'{"items": [], "next": null}')


def problem(status: int, code: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """An answer that tells an error."""
    told = {"type": f"urn:danlu:error:{code}", "title": "t", "status": status, "detail": "what happened", "code": code, "why": "its cause", "fix": "do this"}
    return status, {"Content-Type": "application/problem+json", **headers}, json.dumps(told).encode()


def connect(server: Any, **options: Any) -> tuple[Studio, list[float]]:
    """A studio that notes how long it would have slept."""
    slept: list[float] = []
    return Studio(HttpTransport(server.url, "dl_k_secret", sleep=slept.append, timeout_seconds=10, **options)), slept


def test_what_was_lost_is_asked_again_with_the_same_key(scripted: Any) -> None:
    server = scripted(None, problem(503, "DL703", **{"Retry-After": "3"}), MADE)
    studio, slept = connect(server)

    assert studio.projects.create("p").id == "prj_1"

    keys = {request[2]["Idempotency-Key"] for request in server.requests}
    assert len(server.requests) == 3 and len(keys) == 1
    assert slept[0] < 1 and slept[1] == 3.0
    assert all(request[2]["Authorization"] == "Bearer dl_k_secret" for request in server.requests)
    assert json.loads(server.requests[0][3]) == {"name": "p", "description": ""}


def test_a_repeated_request_waits_for_the_first_one_that_is_under_way(scripted: Any) -> None:
    server = scripted(None, problem(409, "DL711"), MADE)

    assert connect(server)[0].projects.create("p").id == "prj_1"


def test_a_conflict_at_first_sight_is_told_at_once(scripted: Any) -> None:
    server = scripted(problem(409, "DL711"))

    with pytest.raises(ConflictError, match="what happened"):
        connect(server)[0].projects.create("p")


def test_every_new_thing_has_a_key_of_its_own(scripted: Any) -> None:
    server = scripted(MADE, MADE)
    studio, _ = connect(server)
    studio.projects.create("p")
    studio.projects.create("p")

    assert len({request[2]["Idempotency-Key"] for request in server.requests}) == 2


def test_a_change_whose_answer_was_lost_is_not_made_twice(scripted: Any) -> None:
    server = scripted(None)

    with pytest.raises(ServerError):
        connect(server)[0].projects.change("prj_1", ProjectChange(name="q"))

    assert len(server.requests) == 1


def test_a_change_names_its_version(scripted: Any) -> None:
    server = scripted(READ)
    connect(server)[0].projects.change("prj_1", ProjectChange(name="q"), version=7)

    [(verb, path, headers, body)] = server.requests
    assert (verb, path, headers["If-Match"], json.loads(body)) == ("PATCH", "/api/v1/projects/prj_1", '"7"', {"name": "q"})


def test_a_delete_whose_answer_was_lost_was_done(scripted: Any) -> None:
    server = scripted(None, problem(404, "DL710"))

    connect(server)[0].projects.delete("prj_1")

    assert [request[0] for request in server.requests] == ["DELETE", "DELETE"]


def test_it_gives_up_after_a_while(scripted: Any) -> None:
    server = scripted(*[problem(503, "DL703")] * ATTEMPTS)
    studio, slept = connect(server)

    with pytest.raises(OSError, match="DL703: what happened"):
        studio.projects.list()

    assert len(server.requests) == ATTEMPTS and len(slept) == ATTEMPTS - 1


def test_an_error_keeps_its_class_and_words(scripted: Any) -> None:
    with pytest.raises(SignInError) as caught:
        connect(scripted(problem(401, "DL730")))[0].projects.list()

    assert caught.value.to_dict() == {"code": "DL730", "what": "what happened", "why": "its cause", "fix": "do this"}


def test_an_error_of_a_newer_version_is_told_with_its_code(scripted: Any) -> None:
    with pytest.raises(ServerError, match="what happened"):
        connect(scripted(problem(418, "DL999")))[0].projects.list()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {"Content-Type": "text/html"}, b"<html>Sign in to the hotel</html>"), "answered with 200 .text/html."),
        ((200, {}, b'{"rows": []}'), "not as this version knows them"),
        ((403, {"Content-Type": "text/html"}, b"<html>"), "answered with 403"),
        ((400, {"Content-Type": "application/problem+json"}, b"[1]"), "answered with 400"),
        ((302, {"Location": "https://elsewhere.example/"}, b""), "leads elsewhere"),
    ],
    ids=["page", "other fields", "proxy", "no problem", "redirect"],
)
def test_what_is_no_answer_of_a_studio_is_said_so(scripted: Any, answer: Any, said: str) -> None:
    server = scripted(answer)

    with pytest.raises(ServerError, match=said):
        connect(server)[0].projects.list()

    assert len(server.requests) == 1


def test_no_server_is_said_so() -> None:
    studio = Studio(HttpTransport("http://127.0.0.1:9", sleep=lambda seconds: None))

    with pytest.raises(ServerError, match="no answer from http://127.0.0.1:9") as caught:
        studio.projects.list()

    assert caught.value.exit_code == 12 and isinstance(caught.value, ConnectionError)


@pytest.mark.parametrize("url", ["studio.example.org", "ftp://host", "http://", "http://user:password@host", "https://host/?key=1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(NoEffectError, match="is not the address of a server"):
        Studio.connect(url)


def test_ids_and_options_are_written_so_that_they_stay_what_they_are(scripted: Any) -> None:
    server = scripted(READ, NONE)
    studio, _ = connect(server)
    studio.projects.get("../jobs?x=1#y")
    studio.projects.list(limit=5, after="a&b=c")

    assert [request[1] for request in server.requests] == ["/api/v1/projects/..%2Fjobs%3Fx%3D1%23y", "/api/v1/projects?limit=5&after=a%26b%3Dc"]
