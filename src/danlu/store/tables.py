"""Every table. A change here needs a migration (migrations/versions); a test compares the two.

Times are seconds since 1970 (UTC, float). Ids come from `ids.new_id`. `version` counts changes of a row: it is the ETag, and an
update that names another version than the stored one is refused. JSON columns hold what pydantic models or stages wrote; nothing
that is searched for lies in JSON alone.
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, CheckConstraint, Column, Float, ForeignKey, Index, Integer, MetaData, Table, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
Big = BigInteger().with_variant(Integer, "sqlite")
"""64 bits; SQLite gives a row number only to a column that it knows as INTEGER."""

ROLES = ("viewer", "reviewer", "editor", "admin")
"""Each may do what those before it may."""
JOB_STATES = ("waiting", "queued", "running", "pausing", "cancelling", "paused", "succeeded", "failed", "cancelled")
UPLOAD_STATES = ("open", "finished")
PRIORITIES = ("express", "standard", "saver")
CHANNELS = ("webhook", "email")
DELIVERY_STATES = ("waiting", "sent", "failed")


def _one_of(name: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{name} IN ({listed})", name=name)


def _noun(name: str, *columns: Column[Any] | UniqueConstraint | CheckConstraint | Index) -> Table:
    """A table of things with an id, times and a version."""
    return Table(
        name,
        metadata,
        Column("id", Text, primary_key=True),
        *columns,
        Column("created_at", Float, nullable=False),
        Column("updated_at", Float, nullable=False),
        Column("version", Integer, nullable=False),
    )


def _project(*, is_indexed: bool = True) -> Column[Any]:
    """The project something belongs to. What there is much of has an index with the id as well: pages of a project are read in its order."""
    return Column("project_id", Text, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False, index=is_indexed or None)


def _creator() -> Column[Any]:
    return Column("created_by", Text, ForeignKey("users.id", ondelete="SET NULL"))


users = _noun(
    "users",
    Column("name", Text, nullable=False),
    Column("name_key", Text, nullable=False, unique=True),  # case-folded: two names that look alike are one
    Column("email", Text),
    Column("password_hash", Text),  # null: signs in elsewhere (OIDC)
    Column("oidc_subject", Text, unique=True),
    Column("is_admin", Boolean, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("preferences", Json, nullable=False),
)
sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("token_hash", Text, nullable=False, unique=True),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("agent", Text, nullable=False),
    Column("address", Text),
)
one_time_tokens = Table(
    "one_time_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # `first_admin`, `invitation` or `oidc`: store/tokens.py
    Column("token_hash", Text, nullable=False, unique=True),
    Column("fields", Json, nullable=False),
    _creator(),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)
api_keys = _noun(
    "api_keys",
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("project_id", Text, ForeignKey("projects.id", ondelete="CASCADE")),  # null: every project of the user
    Column("name", Text, nullable=False),
    Column("secret_hash", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("expires_at", Float),
    Column("seen_at", Float),
    Column("revoked_at", Float),
    _one_of("role", ROLES),
)
projects = _noun(
    "projects", Column("name", Text, nullable=False), Column("description", Text, nullable=False), _creator(), Column("is_archived", Boolean, nullable=False)
)
members = Table(
    "members",
    metadata,
    Column("project_id", Text, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("role", Text, nullable=False),
    _one_of("role", ROLES),
)
artifacts = Table(
    "artifacts",
    metadata,
    Column("digest", Text, primary_key=True),  # SHA-256 of the content, hexadecimal
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("put_at", Float, nullable=False),  # what was put lately is not collected, even if nothing refers to it yet
)
artifact_parts = Table(
    "artifact_parts",
    metadata,
    Column("folder_digest", Text, ForeignKey("artifacts.digest", ondelete="CASCADE"), primary_key=True),
    Column("digest", Text, ForeignKey("artifacts.digest"), primary_key=True, index=True),
)
datasets = _noun("datasets", _project(), Column("name", Text, nullable=False), _creator(), UniqueConstraint("project_id", "name"))
dataset_versions = _noun(
    "dataset_versions",
    _project(),
    Column("dataset_id", Text, ForeignKey("datasets.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("file_name", Text, nullable=False),
    Column("digest", Text, ForeignKey("artifacts.digest"), nullable=False, index=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("report", Json),  # what `danlu data inspect` says; null until it was looked at
    Column("parent_id", Text, ForeignKey("dataset_versions.id", ondelete="SET NULL")),
    _creator(),
    UniqueConstraint("dataset_id", "number"),
)
uploads = _noun(
    "uploads",
    _project(),
    Column("dataset_id", Text, ForeignKey("datasets.id", ondelete="CASCADE")),  # null: the file becomes a new dataset
    Column("name", Text, nullable=False),  # of that new dataset
    Column("file_name", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text),
    Column("received_bytes", BigInteger, nullable=False),  # all of these are on disk
    Column("state", Text, nullable=False),
    Column("dataset_version_id", Text, ForeignKey("dataset_versions.id", ondelete="SET NULL")),
    Column("expires_at", Float, nullable=False, index=True),
    _creator(),
    _one_of("state", UPLOAD_STATES),
)
runs = _noun(
    "runs",
    _project(is_indexed=False),
    Index(None, "project_id", "id"),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("recipe", Json, nullable=False),  # as written
    Column("resolved", Json),
    Column("fingerprint", Text),
    Column("base_model", Text, nullable=False),
    Column("dataset_version_id", Text, ForeignKey("dataset_versions.id"), index=True),  # a version that a run used is kept
    Column("verdict", Text),
    Column("summary", Json),  # the numbers that lists and cards show
    Column("error", Json),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("discarded_at", Float),  # it goes, with its files, as soon as nothing of it runs any more
    _creator(),
    Index(None, "project_id", "state"),
    Index(None, "project_id", "finished_at"),
)
run_points = Table(
    "run_points",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("kind", Text, primary_key=True),  # `train` or `validation`: one line of metrics.jsonl each
    Column("values", Json, nullable=False),
    sqlite_with_rowid=False,
)
run_events = Table(
    "run_events",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),  # line of events.jsonl, from 0
    Column("kind", Text, nullable=False),
    Column("fields", Json, nullable=False),
    sqlite_with_rowid=False,
)
run_reads = Table(
    "run_reads",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("metrics_file", BigInteger),  # inode: a resumed run writes metrics.jsonl anew
    Column("metrics_offset", BigInteger, nullable=False),  # everything before it is in run_points
    Column("events_offset", BigInteger, nullable=False),
    Column("num_events", Integer, nullable=False),
    Column("num_bad_lines", Integer, nullable=False),
    Column("read_until", Float),  # `finished_at` of the run when all of it was read
)
removals = Table(
    "removals",
    metadata,
    Column("folder", Text, primary_key=True),  # below the home folder; written with the deletion of its row, gone when the folder is
    Column("home", Text),  # where it lies, when several homes share the database
    Column("created_at", Float, nullable=False),
)
jobs = _noun(
    "jobs",
    _project(is_indexed=False),
    Index(None, "project_id", "id"),
    Column("run_id", Text, ForeignKey("runs.id", ondelete="CASCADE"), index=True),
    Column("kind", Text, nullable=False),
    Column("payload", Json, nullable=False),
    Column("state", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("position", Float, nullable=False),  # order inside the priority class; smaller goes first
    Column("num_slots", Integer, nullable=False),
    Column("not_before", Float),
    Column("attempt", Integer, nullable=False),  # fencing: what an older attempt says is refused
    Column("progress", Float, nullable=False),  # grows while work is done; attempts without growth are counted
    Column("attempts_without_progress", Integer, nullable=False),
    Column("progress_at_start", Float, nullable=False),
    Column("is_paused_by_user", Boolean, nullable=False),  # else it only made room, and goes on by itself
    Column("home", Text),  # the home folder its files are in; null until one has taken it
    Column("worker_id", Text),
    Column("pid", Integer),
    Column("pid_started", BigInteger),  # /proc/PID/stat field 22: a pid alone may be another process after a restart
    Column("heartbeat_at", Float),
    Column("result", Json),
    Column("error", Json),
    Column("started_at", Float),
    Column("finished_at", Float),
    _creator(),
    _one_of("state", JOB_STATES),
    _one_of("priority", PRIORITIES),
    Index(None, "state", "priority", "position"),
    Index(None, "position"),
)
job_needs = Table(
    "job_needs",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("needs_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, index=True),
)
slots = Table(
    "slots",
    metadata,
    Column("worker_home", Text, primary_key=True),
    Column("number", Integer, primary_key=True),  # a slot exists once, so it cannot be given twice
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="RESTRICT"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
)
workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("home", Text, nullable=False, unique=True),  # one supervisor per home folder (its id, not its path)
    Column("folder", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", BigInteger, nullable=False),
    Column("num_slots", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("heartbeat_at", Float, nullable=False),
    Column("alarm", Text),  # what keeps it from starting jobs: a full disk, say
)
evaluations = _noun(
    "evaluations",
    _project(),
    Column("run_id", Text, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("report", Json, nullable=False),
)
models = _noun(
    "models",
    _project(),
    Column("name", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("run_id", Text, ForeignKey("runs.id"), nullable=False, index=True),
    Column("kind", Text, nullable=False),  # `adapter` or `model`
    Column("digest", Text, ForeignKey("artifacts.digest"), nullable=False, index=True),
    Column("verdict", Text),
    _creator(),
    UniqueConstraint("project_id", "name", "number"),
)
exports = _noun(
    "exports",
    _project(),
    Column("run_id", Text, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("type", Text, nullable=False),
    Column("digest", Text, ForeignKey("artifacts.digest"), nullable=False, index=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("verification", Json, nullable=False),
)
votes = _noun(
    "votes",
    _project(),
    Column("messages", Json, nullable=False),
    Column("answers", Json, nullable=False),  # [{"model", "text"}, ...] as they were shown
    Column("winner", Integer),  # index of the better answer; null for a tie
    Column("is_blind", Boolean, nullable=False),  # whether the names of the models were hidden
    _creator(),
)
ratings = _noun(
    "ratings",
    _project(),
    Column("run_id", Text, ForeignKey("runs.id", ondelete="SET NULL"), index=True),  # null: the base model's answer
    Column("model", Text, nullable=False),  # as it was shown: `name@number`, the run's name, or the base model
    Column("messages", Json, nullable=False),
    Column("answer", Text, nullable=False),
    Column("score", Integer, nullable=False),
    Column("correction", Text),  # what the answer should have been
    _creator(),
    CheckConstraint("score BETWEEN 1 AND 5", name="score"),
)
audit_log = Table(
    "audit_log",
    metadata,
    Column("number", Big, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False, index=True),
    Column("user_id", Text),  # no foreign key: the log outlives the user
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False, index=True),
    Column("project_id", Text, index=True),
    Column("address", Text),
    Column("fields", Json, nullable=False),
)
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_hash", Text, nullable=False),
    Column("response", Json),  # null while the first request is under way
    Column("created_at", Float, nullable=False, index=True),
)
alarms = _noun(
    "alarms",
    Column("kind", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("fields", Json, nullable=False),
    Column("cleared_at", Float, index=True),
)
subscriptions = _noun(
    "subscriptions",
    _project(),
    Column("channel", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("secret", Text, nullable=False),  # signs what is sent: it has to be known, so it is no hash
    Column("states", Json, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("seen_until", Float, nullable=False),
    _creator(),
    _one_of("channel", CHANNELS),
)
deliveries = _noun(
    "deliveries",
    _project(),
    Column("subscription_id", Text, ForeignKey("subscriptions.id", ondelete="CASCADE"), nullable=False),
    Column("run_id", Text, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("ended_at", Float, nullable=False),  # a run that went on and ended again is told again
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Float, nullable=False),
    Column("last_error", Text),
    _one_of("state", DELIVERY_STATES),
    UniqueConstraint("subscription_id", "run_id", "ended_at"),
    Index(None, "state", "next_at"),
)
