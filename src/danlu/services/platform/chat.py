"""Use cases on talking to models: answers as they are written, engines loaded on demand and unloaded when nobody asks.

The model lives in a job of kind `chat` (worker/kinds/chat.py); here is only the client's side, without torch.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import orjson
from pydantic import Field

from danlu.errors import ConflictError, ForbiddenError, JobError, NotFoundError, StorageError, error_from
from danlu.models.catalogue import EMBEDDED
from danlu.recipe.base import StrictModel
from danlu.services import forecasts
from danlu.services.answering import can_share
from danlu.services.engine import READY, SOCKET, TOKEN
from danlu.services.platform import quotas
from danlu.services.platform.access import Actor, check, role_in
from danlu.services.platform.inputs import base_model_path, check_is_here, is_path, run_of
from danlu.services.platform.operations import Call, operation
from danlu.services.platform.platform import Platform
from danlu.services.platform.votes import Turn
from danlu.store import jobs, queue, workers
from danlu.store.engine import Connection
from danlu.store.jobs import JOBS, Job
from danlu.store.runs import RUNS
from danlu.store.tables import ROLES

POLL_SECONDS = 0.1
TELL_SECONDS = 1.0
"""How often it is told that a model is still being loaded."""
LOAD_SECONDS = 300.0
"""How long an engine may take to come up, its place in the queue included."""
NO_WORKER_SECONDS = 30.0
"""How long an engine waits in the queue of a home in which no worker is heard."""
ANSWER_SECONDS = 600.0
"""How long an engine may be silent in the middle of an answer."""
ALIVE = ["queued", "waiting", "running"]


class Question(StrictModel):
    """A conversation to go on with."""

    model: str = Field(min_length=1, max_length=200)
    """Who answers: a run's id, a model as `name@number`, or a base model."""
    messages: list[Turn] = Field(min_length=1, max_length=200)
    """The conversation so far; its last message is the user's."""
    temperature: float = Field(0.7, ge=0, le=5)
    """0 always takes the likeliest token."""
    top_p: float = Field(0.9, gt=0, le=1)
    """Draw from the likeliest tokens that together have this probability."""
    max_new_tokens: int = Field(256, ge=1, le=32_768)
    """Longest answer."""
    seed: int | None = Field(None, ge=0, lt=2**63)
    """Draws the same answer again; left out, each time another one."""


class EngineChoice(StrictModel):
    """A model to load before anyone asks."""

    model: str = Field(min_length=1, max_length=200)
    """A run's id, a model as `name@number`, or a base model."""


@dataclass(frozen=True)
class ChatPiece:
    """What happens while an answer is made."""

    kind: Literal["loading", "waiting", "text", "end"]
    text: str = ""
    """The next piece (`text`)."""
    ahead: int = 0
    """How many answers come first (`waiting`)."""
    num_prompt_tokens: int | None = None
    num_tokens: int | None = None
    seconds: float | None = None
    is_cut: bool | None = None
    """Whether it had not ended after `max_new_tokens`."""


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    model: str
    text: str
    num_prompt_tokens: int
    num_tokens: int
    seconds: float
    is_cut: bool


@dataclass(frozen=True)
class EngineState:
    """A model in memory, or on its way there."""

    job_id: str
    state: Literal["queued", "loading", "ready"]
    base_model: str
    run_id: str | None
    """The only run it answers for; none: the base model and every run over it."""
    started_at: float | None


@operation("POST", "/projects/{project_id}/chat", right="reviewer", status=200, own_transaction=True, is_logged=False, is_long=True)
def answer(call: Call, project_id: str, body: Question) -> Answer:
    """Ask a model and wait for its whole answer; it is loaded first where it is not.

    Raises:
        NotFoundError: this project has no such run or model.
        JobError: it could not be loaded, or took too long.
    """
    pieces = list(_pieces(call.platform, call.actor, project_id, body))
    end = pieces[-1]
    text = "".join(piece.text for piece in pieces)
    return Answer(body.model, text, end.num_prompt_tokens or 0, end.num_tokens or 0, end.seconds or 0.0, bool(end.is_cut))


def stream_answer(platform: Platform, actor: Actor, project_id: str, body: Question) -> Iterator[ChatPiece]:
    """The same piece by piece, for doors that can stream. Closing the iterator stops the model.

    Raises:
        ForbiddenError, NotFoundError: the actor may not, told before the first piece.
    """
    check_may_ask(platform, actor, project_id)
    with platform.database.reading() as connection:
        _wanted(platform, connection, actor, project_id, body.model)
    return _pieces(platform, actor, project_id, body)


def check_may_ask(platform: Platform, actor: Actor, project_id: str) -> None:
    """Refuse who may not talk to the models of a project.

    Raises:
        SignInError, ForbiddenError, NotFoundError: the actor may not.
    """
    with platform.database.reading() as connection:
        check(connection, actor, "reviewer", {"project_id": project_id}, changes=True)


@operation("GET", "/projects/{project_id}/engines", right="viewer")
def list_engines(call: Call, project_id: str) -> list[EngineState]:
    """Models of a project that are in memory, or are being loaded."""
    return [_state(call.platform, job) for job in JOBS.all(call.connection, project_id=project_id, kind="chat", state=ALIVE)]


@operation("POST", "/projects/{project_id}/engines", right="reviewer", own_transaction=True)
def load_engine(call: Call, project_id: str, body: EngineChoice) -> EngineState:
    """Load a model before anyone asks; does nothing where it is loaded."""
    found, _ = _find_or_submit(call.platform, call.actor, project_id, body.model, lambda connection, job: call.settle(connection, _state(call.platform, job)))
    return _state(call.platform, found)


@operation("POST", "/jobs/{job_id}/unload", right="reviewer", status=200)
def unload_engine(call: Call, job_id: str) -> Job:
    """Take a model out of memory; answers under way are cut.

    Raises:
        ConflictError: the job is no engine, or it is over.
    """
    if JOBS.get(call.connection, job_id).kind != "chat":
        raise ConflictError(f"job {job_id} is no engine", why="only a model in memory can be unloaded", fix="cancel the job instead")
    return jobs.cancel(call.connection, job_id)


def _pieces(platform: Platform, actor: Actor, project_id: str, body: Question) -> Iterator[ChatPiece]:
    begun, told_at = time.monotonic(), -TELL_SECONDS
    while True:
        job, run_dir = _find_or_submit(platform, actor, project_id, body.model)
        connection = _connected(platform, job)
        if connection is not None:
            break
        if time.monotonic() - told_at >= TELL_SECONDS:  # again and again, so that who has gone meanwhile is noticed
            yield ChatPiece("loading")
            told_at = time.monotonic()
        waited = time.monotonic() - begun
        if waited > LOAD_SECONDS or (waited > NO_WORKER_SECONDS and not _has_worker(platform, job)):
            _give_up(platform, job, body.model, waited)
        time.sleep(POLL_SECONDS)
    with connection:
        request = body.model_dump(mode="json", exclude={"model"}) | {"run_dir": run_dir, "token": _token(platform, job)}
        connection.sendall(orjson.dumps(request, option=orjson.OPT_APPEND_NEWLINE))
        with connection.makefile("rb") as lines:
            for line in lines:
                message = orjson.loads(line)
                if message["kind"] == "error":
                    raise error_from(message)
                yield ChatPiece(**message)
                if message["kind"] == "end":
                    return
    raise JobError("the model stopped in the middle of its answer", why="its engine was unloaded, or died", fix="ask again")


def _has_worker(platform: Platform, job: Job) -> bool:
    """Whether somebody will start a job that is in the queue, or has started it."""
    with platform.database.reading() as connection:
        return job.state != "queued" or any(one.home == job.home and one.is_alive(time.time()) for one in workers.all_workers(connection))


def _give_up(platform: Platform, job: Job, model: str, waited: float) -> NoReturn:
    """Tell whoever has waited long enough why nobody answers; a model that nobody waits for is not loaded later on.

    Raises:
        JobError: always.
    """
    with platform.database.writing() as connection:
        job = JOBS.get(connection, job.id)
        why, fix = _what_it_waits_for(connection, job)
        if job.state == "queued":
            jobs.cancel(connection, job.id)
    raise JobError(f"{model[:80]} was not loaded within {waited:.0f} seconds", why=f"its job {job.id} is {job.state}{why}", fix=fix)


def _what_it_waits_for(connection: Connection, job: Job) -> tuple[str, str]:
    """What keeps an engine from coming up, and what helps."""
    if job.state != "queued":
        return ": it is still being loaded", f"read its log (danlu logs {job.id}), then ask again"
    worker = next((one for one in workers.all_workers(connection) if one.home == job.home), None)
    if worker is None or not worker.is_alive(time.time()):
        return ", and no worker is there", "start one (`danlu studio` has one, `danlu worker` is one), then ask again"
    if worker.alarm is not None:
        return f", and the worker starts nothing: {worker.alarm}", "see to that, then ask again"
    held = [other for other in queue.held(connection, job.home or "") if queue.slots_of(connection, other.id)]
    if job.num_slots and held:
        named = ", ".join(f"{other.id} ({other.kind})" for other in held[:3])
        return f": all {worker.num_slots} slots are taken, by {named}", "wait for these jobs, or pause one; runs of the class saver make room by themselves"
    return f", behind others (slots: {worker.num_slots}, needed: {job.num_slots})", "look at the queue (danlu queue), then ask again"


def _find_or_submit(
    platform: Platform, actor: Actor, project_id: str, model: str, settle: Callable[[Connection, Job], None] | None = None
) -> tuple[Job, str | None]:
    """The job that holds a model (a new one where there is none), and the folder of the run that is asked for.

    Raises:
        ForbiddenError: there is none, and the actor may not load this one.
        DanluError: why the last attempt to load it failed.
    """
    with platform.database.reading() as connection:
        payload, run_dir, found = _wanted(platform, connection, actor, project_id, model)
    if found is not None:
        return found, run_dir
    num_slots = int(forecasts.device().kind == "cuda")  # on a processor it shares with whatever runs; a GPU it must have to itself
    with platform.database.writing() as connection:
        found = _alive(connection, project_id, payload)
        if found is None:
            failed = _just_failed(connection, project_id, payload)
            if failed is not None:
                raise error_from(failed)
            quotas.check_jobs(platform, connection, project_id)
            values: dict[str, Any] = {"project_id": project_id, "created_by": actor.user_id, "priority": "express", "num_slots": num_slots}
            home = workers.home_id(platform.database, platform.home)  # it is reached by a socket of this machine
            found = jobs.submit(connection, kind="chat", payload=payload, home=home, **values)
            if settle is not None:
                settle(connection, found)
    return found, run_dir


def _wanted(platform: Platform, connection: Connection, actor: Actor, project_id: str, model: str) -> tuple[dict[str, Any], str | None, Job | None]:
    """What the engine of a model has to hold, the folder of the run that is asked for, and the engine, where it is there.

    Raises:
        NotFoundError: this project has no such run, and there is no such base model.
        ForbiddenError: the engine is not there, and the actor may not load this model.
    """
    payload, run_dir = _engine_of(platform, connection, project_id, model)
    found = _alive(connection, project_id, payload)
    if found is None and run_dir is None:
        _check_may_load(connection, actor, project_id, payload["base_model"])
    return payload, run_dir, found


def _check_may_load(connection: Connection, actor: Actor, project_id: str, base_model: str) -> None:
    """Leave it to editors to load a base model that nothing in the project is made from: it takes memory and disk, and may have to be fetched first.

    Raises:
        ForbiddenError: the actor is none.
    """
    role = role_in(connection, actor, project_id) or "viewer"
    if ROLES.index(role) >= ROLES.index("editor") or base_model in EMBEDDED:
        return
    if not RUNS.page(connection, limit=1, project_id=project_id, base_model=base_model).items:
        raise ForbiddenError(
            f"loading {base_model[:80]} needs the role editor",
            why=f"no run of this project is made from it, and your role is {role}",
            fix="ask an editor to load it, which lets everybody ask it; or ask a model of the project",
        )


def _engine_of(platform: Platform, connection: Connection, project_id: str, model: str) -> tuple[dict[str, Any], str | None]:
    """What the engine of a model has to hold, and the folder of the run that is asked for.

    Raises:
        NotFoundError: this project has no such run, and there is no such base model.
        ConflictError: the run has not finished.
    """
    payload: dict[str, Any] = {"type": "chat", "path": None, "run_id": None, "run_dir": None}
    try:
        run = run_of(connection, project_id, model)
    except NotFoundError:
        path = base_model_path(platform, model)
        return payload | {"base_model": model, "path": path, "dtype": "bfloat16" if forecasts.device().kind == "cuda" else "float32"}, None
    if run.state != "succeeded" or run.resolved is None:
        raise ConflictError(f"run {run.id} has not finished", why=f"it is {run.state}: there is no model to talk to yet", fix="wait for it, or resume it")
    check_is_here(platform, connection, run)
    folder = str(platform.run_folder(run.id))
    payload["base_model"] = run.base_model
    if not can_share(run.resolved):
        return payload | {"dtype": None, "run_id": run.id, "run_dir": folder}, folder
    base = (run.summary or {}).get("base_model") or {}
    payload["path"] = base.get("folder") if is_path(run.base_model) else base_model_path(platform, run.base_model)
    return payload | {"dtype": run.resolved["training"]["dtype"]}, folder


def _alive(connection: Connection, project_id: str, payload: dict[str, Any]) -> Job | None:
    """The engine that holds this; its payload names it."""
    found = [job for job in JOBS.all(connection, project_id=project_id, kind="chat", state=ALIVE) if _is_same(job, payload)]
    return found[0] if found else None


def _just_failed(connection: Connection, project_id: str, payload: dict[str, Any]) -> dict[str, Any] | None:
    """Why the same engine failed a moment ago: whoever waits for it is told, instead of trying for ever."""
    for job in JOBS.page(connection, project_id=project_id, kind="chat", state="failed", limit=5).items:
        if _is_same(job, payload) and job.finished_at is not None and time.time() - job.finished_at < 5.0:
            return job.error
    return None


def _is_same(job: Job, payload: dict[str, Any]) -> bool:
    return all(job.payload.get(name) == value for name, value in payload.items())


def _folder(platform: Platform, job: Job) -> Path:
    return platform.job_folder(job.id) / f"attempt-{job.attempt}"


def _state(platform: Platform, job: Job) -> EngineState:
    is_ready = job.state == "running" and (_folder(platform, job) / READY).exists()
    state: Literal["queued", "loading", "ready"] = "ready" if is_ready else "loading" if job.state == "running" else "queued"
    return EngineState(job.id, state, job.payload["base_model"], job.payload.get("run_id"), job.started_at)


def _connected(platform: Platform, job: Job) -> socket.socket | None:
    """A connection to an engine; None while it is not there (yet, or any more)."""
    folder = _folder(platform, job)
    if job.state != "running" or not (folder / READY).exists():
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_SECONDS)
    try:
        with _short(folder) as name:
            connection.connect(name)
    except (ConnectionRefusedError, FileNotFoundError):
        connection.close()
        return None
    return connection


@contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A name of the engine's socket that fits into the 107 characters that there are for it."""
    path = str(folder / SOCKET)
    if len(path.encode()) < 100:
        yield path
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


def _token(platform: Platform, job: Job) -> str:
    try:
        return (_folder(platform, job) / TOKEN).read_text("utf-8")
    except OSError as error:
        raise StorageError("the engine's token cannot be read", why=error.strerror or repr(error), fix="ask again") from error
