"""Use cases on what came of a run: proof, cases, report, and several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from danlu.errors import NotFoundError
from danlu.files import read_json
from danlu.recipe.base import StrictModel
from danlu.run_dir import RunDir
from danlu.services.platform.operations import Call, operation
from danlu.store.engine import Connection
from danlu.store.rows import Page
from danlu.store.runs import EVALUATIONS, RUNS, Evaluation, Run

Order = Literal["file", "best", "worst"]
MAX_CASES = 100


class Comparison(StrictModel):
    """Runs to put side by side."""

    run_ids: list[str] = Field(min_length=2, max_length=20)
    """Runs of one project."""


@dataclass(frozen=True)
class Proof:
    """What a run gained and what it lost."""

    run_id: str
    verdict: dict[str, Any] | None
    """Label, both scores, change with its interval, and two or three plain sentences in both languages; null when nothing was measured."""
    metrics: dict[str, Any]
    """Each with base, tuned, delta, interval, p, wins, ties and losses."""
    retention: dict[str, Any] | None
    """What became of general ability."""
    rounds: dict[str, Any] | None
    """Against the round before, where there was one."""
    warnings: list[dict[str, Any]]
    heldout: dict[str, Any] | None
    """How many rows, tokens and answers it rests on."""
    coach: list[dict[str, Any]]
    fingerprint: str | None
    measured_at: float


@dataclass(frozen=True)
class Cases:
    """Held-out examples with what both models wrote."""

    items: list[dict[str, Any]]
    """`{example, line, prompt, reference, nll_per_token, answers, scores}`."""
    total: int


@dataclass(frozen=True)
class Difference:
    """A setting in which runs differ."""

    path: str
    values: list[Any]
    """One for each run, in their order; null where it has none."""


@dataclass(frozen=True)
class ComparedRuns:
    """Runs side by side."""

    runs: list[Run]
    settings: list[Difference]
    """Resolved settings in which they differ (written ones, while a run has not come that far)."""
    same: dict[str, Any]
    """Settings that all of them have alike, by dotted path."""
    metrics: dict[str, list[dict[str, Any] | None]]
    """Each metric by run."""
    verdicts: list[dict[str, Any] | None]


@operation("GET", "/runs/{run_id}/proof", right="viewer")
def get_proof(call: Call, run_id: str) -> Proof:
    """The verdict on a run with everything it rests on.

    Raises:
        NotFoundError: it was not measured yet.
    """
    found = evaluation_of(call.connection, run_id)
    report = found.report
    return Proof(
        run_id,
        report.get("verdict"),
        report.get("metrics") or {},
        report.get("retention"),
        report.get("rounds"),
        list(report.get("warnings") or []),
        report.get("heldout"),
        list(report.get("coach") or []),
        report.get("fingerprint"),
        found.updated_at,
    )


@operation("GET", "/runs/{run_id}/report", right="viewer")
def get_report(call: Call, run_id: str) -> dict[str, Any]:
    """Everything a run knows about itself: the content of its report.json.

    Raises:
        NotFoundError: it was not measured yet.
    """
    return evaluation_of(call.connection, run_id).report


@operation("GET", "/runs/{run_id}/cases", right="viewer")
def list_cases(call: Call, run_id: str, order: Order = "file", offset: int = 0, limit: int = 20) -> Cases:
    """Held-out examples with both answers: in the order of the file, or those first that gained (or lost) most."""
    from danlu.evaluation.report.cases import cases_of, changes_of

    run_dir = RunDir(call.platform.run_folder(run_id))
    path = run_dir.evaluation / "heldout.json"
    if not path.exists():
        return Cases([], 0)
    heldout = read_json(path)
    changes = changes_of(heldout)
    generated = set(heldout["generation"]["examples"]) if heldout["generation"] else set()
    wanted = [example for example in changes if example in generated] or list(changes)
    sign = {"file": 0, "best": 1, "worst": -1}[order]
    wanted.sort(key=lambda example: (sign * (changes[example][1] - changes[example][0]), example))
    start = max(0, offset)
    return Cases(cases_of(heldout, run_dir, wanted[start : start + max(1, min(limit, MAX_CASES))]), len(wanted))


@operation("GET", "/projects/{project_id}/evaluations", right="viewer")
def list_evaluations(call: Call, project_id: str, limit: int = 50, after: str | None = None) -> Page[Evaluation]:
    """What was measured of the runs of a project, newest first."""
    return EVALUATIONS.page(call.connection, limit=limit, after=after, project_id=project_id)


@operation("GET", "/evaluations/{evaluation_id}", right="viewer")
def get_evaluation(call: Call, evaluation_id: str) -> Evaluation:
    """Return one evaluation."""
    return EVALUATIONS.get(call.connection, evaluation_id)


@operation("POST", "/projects/{project_id}/runs/compare", right="viewer", status=200, is_logged=False)
def compare_runs(call: Call, project_id: str, body: Comparison) -> ComparedRuns:
    """Put runs of a project side by side: settings in which they differ, metrics, verdicts.

    Raises:
        NotFoundError: one of them is no run of this project.
    """
    runs = [_run_in(call.connection, project_id, id) for id in dict.fromkeys(body.run_ids)]
    flat = [dict(_flat(run.resolved or run.recipe)) for run in runs]
    paths = sorted({path for settings in flat for path in settings})
    rows = [Difference(path, [one.get(path) for one in flat]) for path in paths]
    settings = [row for row in rows if len({repr(value) for value in row.values}) > 1]
    same = {row.path: row.values[0] for row in rows if row not in settings}
    reports = [found.report if (found := EVALUATIONS.find(call.connection, run_id=run.id)) is not None else {} for run in runs]
    names = dict.fromkeys(name for report in reports for name in report.get("metrics") or {})
    metrics = {name: [(report.get("metrics") or {}).get(name) for report in reports] for name in names}
    return ComparedRuns(runs, settings, same, metrics, [report.get("verdict") for report in reports])


def evaluation_of(connection: Connection, run_id: str) -> Evaluation:
    """What was measured of a run.

    Raises:
        NotFoundError: nothing yet.
    """
    found = EVALUATIONS.find(connection, run_id=run_id)
    if found is None:
        raise _not_measured(run_id)
    return found


def _not_measured(run_id: str) -> NotFoundError:
    return NotFoundError(f"run {run_id} has no report yet", why="it is made when the run has finished", fix="wait for the run, or resume it")


def _run_in(connection: Connection, project_id: str, run_id: str) -> Run:
    run = RUNS.find(connection, id=run_id, project_id=project_id)
    if run is None:
        raise NotFoundError(f"this project has no run {run_id[:80]!r}", why="the id is mistyped, or it belongs elsewhere", fix="list the runs of the project")
    return run


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, item in value.items():
        found += _flat(item, f"{prefix}{key}.") if isinstance(item, dict) and item else [(prefix + key, item)]
    return found
