"""Logs: one line per event, and no secret in any of them."""

import json
import logging

import pytest

from danlu.logs import JsonFormatter, PlainFormatter, redact, request_id

SECRETS = {
    "Authorization: Bearer dl_01k9_abcdefghijklmnop": "abcdefghijklmnop",
    "GET /x?token=abc123secret&limit=5": "abc123secret",
    "postgresql+psycopg://danlu:hunter22@db/danlu": "hunter22",
    "Cookie: __Host-danlu=0123456789abcdef; other=xyz": "0123456789abcdef",
    '{"password": "correct horse", "name": "ann"}': "correct",
    "key dl_01k9z3_S3cr3tS3cr3t in text": "S3cr3tS3cr3t",
    "hf_abcdefghijklmnopqrstuv": "ijklmnopqrstuv",
    "smtp://user:p%40ss@mail.example.org:587": "p%40ss",
    "X-Danlu-Signature: t=1,v1=deadbeef signature=deadbeef0": "deadbeef0",
    "api_key='sk-0123456789abcdef'": "0123456789abcdef",
    "Basic dXNlcjpwYXNz": "dXNlcjpwYXNz",
    "AccountName=a;AccountKey=Eby8vdM02xNOcqFl==;BlobEndpoint=http://a": "Eby8vdM02xNOcqFl",
    "https://a.blob.core.windows.net/c?sv=1&sig=abc%2Fdef": "abc%2Fdef",
    "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI": "wJalrXUtnFEMI",
}


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("danlu.test", logging.INFO, __file__, 1, message, None, None)
    vars(made).update(fields)
    return made


@pytest.mark.parametrize(("text", "secret"), SECRETS.items(), ids=range(len(SECRETS)))
def test_secrets_are_blotted_out(text: str, secret: str) -> None:
    assert secret not in redact(text)


@pytest.mark.parametrize("text", ["run run_01k9z3 succeeded", "method=GET route=/runs/{run_id} status=200 ms=3.1", "12 tokens per forward pass"])
def test_the_rest_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_a_line_of_json_holds_message_fields_and_request_id() -> None:
    token = request_id.set("r1")
    line = json.loads(JsonFormatter().format(record("request", route="/runs", status=200, key="token=abcdefgh")))
    request_id.reset(token)

    assert {name: line[name] for name in ("level", "logger", "message", "route", "status", "key", "request_id")} == {
        "level": "info",
        "logger": "danlu.test",
        "message": "request",
        "route": "/runs",
        "status": 200,
        "key": "token=***",
        "request_id": "r1",
    }


def test_a_traceback_is_told_without_its_secrets() -> None:
    try:
        raise ValueError("postgresql://danlu:hunter22@db")
    except ValueError as error:
        made = record("request crashed")
        made.exc_info = (ValueError, error, error.__traceback__)

    for formatter in (PlainFormatter(), JsonFormatter()):
        assert "ValueError" in formatter.format(made)
        assert "hunter22" not in formatter.format(made)


def test_a_message_cannot_forge_a_line_or_steer_a_terminal() -> None:
    line = PlainFormatter().format(record("name\n2026-01-01 00:00:00 INFO    danlu: forged \x1b[2J"))

    assert "\n" not in line and "\x1b" not in line
