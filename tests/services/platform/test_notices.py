"""Notices: every end of a run is told, once where it can be, and never lost."""

import hashlib
import hmac
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import StreamRequestHandler, TCPServer

import orjson
import pytest
from pydantic import ValidationError

from danlu.errors import ConflictError, RequestError
from danlu.services.platform import notices, projects
from danlu.services.platform.access import Actor
from danlu.services.platform.notices import NewSubscription, SubscriptionChange
from danlu.services.platform.platform import Platform
from danlu.settings import Network
from danlu.store.notices import DELIVERIES, Delivery
from danlu.store.runs import RUNS

OWNER = Actor.local()


class Receiver:
    """Takes webhooks, in memory."""

    def __init__(self, *answers: int) -> None:
        self.answers, self.got = list(answers), list[tuple[str, bytes, dict[str, str]]]()

    def __call__(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        self.got.append((url, body, headers))
        return self.answers.pop(0) if self.answers else 200


@pytest.fixture
def project_id(platform: Platform) -> str:
    return projects.create_project(platform, OWNER, projects.NewProject(name="p")).id


def subscribe(platform: Platform, project_id: str, **values: object) -> notices.MadeSubscription:
    body = NewSubscription.model_validate({"address": "https://hooks.example.org/x?y=1"} | values)
    return notices.create_subscription(platform, OWNER, project_id, body)


def end_run(platform: Platform, project_id: str, state: str = "succeeded", finished_at: float | None = None) -> str:
    with platform.database.writing() as connection:
        run = RUNS.insert(connection, project_id=project_id, name="家", state="running", recipe={"dataset": "private.jsonl"}, base_model="m")
        return RUNS.update(connection, run.id, state=state, finished_at=finished_at or time.time(), verdict="improved").id


def deliveries(platform: Platform, subscription_id: str) -> list[Delivery]:
    return notices.list_deliveries(platform, OWNER, subscription_id).items


def test_the_end_of_a_run_is_told_once_and_signed(platform: Platform, project_id: str) -> None:
    end_run(platform, project_id, finished_at=time.time() - 60)  # before anybody asked to be told
    made, receiver = subscribe(platform, project_id), Receiver()
    run_id = end_run(platform, project_id)

    assert [notices.deliver(platform, post=receiver) for _ in range(3)] == [1, 0, 0]
    ((url, body, headers),) = receiver.got
    told = orjson.loads(body)
    at = headers["X-Danlu-Signature"].split(",")[0].removeprefix("t=")
    signature = hmac.new(made.secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    assert (url, headers["X-Danlu-Signature"]) == ("https://hooks.example.org/x?y=1", f"t={at},v1={signature}")
    assert (told["event"], told["run"]["id"], told["run"]["state"], told["run"]["verdict"]) == ("run.ended", run_id, "succeeded", "improved")
    assert b"private.jsonl" not in body


def test_only_the_ends_that_were_asked_for_are_told(platform: Platform, project_id: str) -> None:
    made, receiver = subscribe(platform, project_id, states=["failed"]), Receiver()
    end_run(platform, project_id, "succeeded")
    failed = end_run(platform, project_id, "failed")
    notices.deliver(platform, post=receiver)
    notices.change_subscription(platform, OWNER, made.id, SubscriptionChange(is_active=False))
    end_run(platform, project_id, "failed")
    notices.deliver(platform, post=receiver)

    assert [orjson.loads(body)["run"]["id"] for _, body, _ in receiver.got] == [failed]


def test_what_is_refused_is_sent_again_later_and_at_last_given_up(platform: Platform, project_id: str) -> None:
    made, receiver = subscribe(platform, project_id), Receiver(*[503] * 20)
    end_run(platform, project_id)
    now = time.time()
    for _ in range(9):
        notices.deliver(platform, post=receiver, now=lambda moment=now: moment)
        assert notices.deliver(platform, post=receiver, now=lambda moment=now: moment) == 0  # not before its time
        now += 30_000

    (delivery,) = deliveries(platform, made.id)
    assert (delivery.state, delivery.attempts, len(receiver.got)) == ("failed", 7, 7)
    assert delivery.last_error == "the receiver answered 503"


def test_a_kill_while_sending_loses_no_notice(platform: Platform, project_id: str) -> None:
    class Killed(BaseException):
        pass

    def dies(url: str, body: bytes, headers: dict[str, str]) -> int:
        raise Killed

    made, receiver, now = subscribe(platform, project_id), Receiver(), time.time()
    end_run(platform, project_id)
    with pytest.raises(Killed):
        notices.deliver(platform, post=dies, now=lambda moment=now: moment)

    assert notices.deliver(platform, post=receiver, now=lambda: now + notices.LEASE_SECONDS + 1) == 1
    assert [delivery.state for delivery in deliveries(platform, made.id)] == ["sent"]


def test_a_run_that_goes_on_and_ends_again_is_told_again(platform: Platform, project_id: str) -> None:
    subscribe(platform, project_id)
    receiver, run_id = Receiver(), end_run(platform, project_id, "failed")
    notices.deliver(platform, post=receiver)
    with platform.database.writing() as connection:
        RUNS.update(connection, run_id, state="succeeded", finished_at=time.time() + 1)
    notices.deliver(platform, post=receiver)

    assert [orjson.loads(body)["run"]["state"] for _, body, _ in receiver.got] == ["failed", "succeeded"]


def test_the_secret_is_shown_once(platform: Platform, project_id: str) -> None:
    made = subscribe(platform, project_id)

    assert made.secret.startswith("whs_")
    assert "secret" not in vars(notices.list_subscriptions(platform, OWNER, project_id).items[0])


@pytest.mark.parametrize(
    "url", ["file://localhost/etc/passwd", "gopher://x", "https://user:password@example.org", "http://", "//example.org", "https://x:99999"]
)
def test_what_is_no_web_address_is_refused(platform: Platform, project_id: str, url: str) -> None:
    with pytest.raises((RequestError, ValidationError)):
        subscribe(platform, project_id, address=url)


@pytest.fixture
def receiver_url() -> Iterator[tuple[str, list[bytes]]]:
    """A web server on this machine."""
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_reaches_this_machine_only_when_the_administrator_allows_it(
    platform: Platform, project_id: str, receiver_url: tuple[str, list[bytes]]
) -> None:
    url, got = receiver_url
    made = subscribe(platform, project_id, address=url)
    end_run(platform, project_id)

    assert (notices.deliver(platform), got) == (0, [])
    with platform.database.writing() as connection:
        waiting = DELIVERIES.all(connection, subscription_id=made.id)[0]
        DELIVERIES.update(connection, waiting.id, next_at=0.0)
    assert "is not a public host" in (waiting.last_error or "")
    allowing = replace(platform, settings=replace(platform.settings, network=Network(allow_hosts=("127.0.0.1",))))
    assert (notices.deliver(allowing), len(got)) == (1, 1)


class MailServer(TCPServer):
    """Says yes to everything, and keeps the mails."""

    allow_reuse_address = True

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline():
                verb = line[:4].upper()
                if verb == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    mail = b""
                    while (part := self.rfile.readline()) != b".\r\n":
                        mail += part
                    self.server.mails.append(mail)  # type: ignore[attr-defined]
                self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 yes\r\n")

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.mails: list[bytes] = []


def test_a_mail_is_sent_through_the_mail_server_that_is_set(platform: Platform, project_id: str) -> None:
    with pytest.raises(ConflictError, match="no mail"):
        subscribe(platform, project_id, channel="email", address="ann@example.org")
    with MailServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"smtp+plain://127.0.0.1:{server.server_address[1]}"
        mailing = replace(platform, settings=replace(platform.settings, smtp_url=url))
        with pytest.raises(RequestError):
            subscribe(mailing, project_id, channel="email", address="ann@example.org,bob@example.org")
        subscribe(mailing, project_id, channel="email", address="ann@example.org")
        end_run(mailing, project_id)
        assert notices.deliver(mailing) == 1
        server.shutdown()

    mail = message_from_bytes(server.mails[0], policy=policy.default)
    assert (mail["To"], mail["Subject"]) == ("ann@example.org", "Danlu: 家 succeeded")
    assert "improved" in mail.get_content()
