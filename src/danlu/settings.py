"""Deployment facts only: where things are kept. Nothing here changes the result of a run."""

import os
from dataclasses import dataclass, field
from pathlib import Path

LIMITS = ("DANLU_MIN_FREE_BYTES", "DANLU_PROJECT_QUOTA_BYTES")


@dataclass(frozen=True)
class Network:
    """How the studio is reached, who may enter, and where it may go itself."""

    auth: str = "auto"
    """`auto`: no signing in on this machine until there is a user. `users`: always sign in (`DANLU_AUTH`)."""
    public_url: str | None = None
    """Where people find the studio, when a proxy stands before it (`DANLU_PUBLIC_URL`, e.g. `https://danlu.example.org`)."""
    hosts: tuple[str, ...] = ()
    """More names the server answers to (`DANLU_HOSTS`, with commas)."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed (`DANLU_TRUSTED_PROXIES`, with commas)."""
    allows_plain_http: bool = False
    """Whether one may sign in without https from other machines (`DANLU_PLAIN_HTTP=1`): passwords then cross the network in the clear."""
    allow_hosts: tuple[str, ...] = ()
    """Internal hosts the server may ask on behalf of users, `name` or `name:port` (`DANLU_ALLOW_HOSTS`, with commas)."""
    rate_limit: int = 30_000
    """Requests per minute and user (`DANLU_RATE_LIMIT`)."""
    max_waiting_jobs: int = 1000
    """Jobs of one project that may wait in the queue (`DANLU_MAX_WAITING_JOBS`)."""
    max_projects: int = 100
    """Projects that one user may have made, administrators aside (`DANLU_MAX_PROJECTS`): every project has a share of the disk and the queue."""
    oidc_issuer: str | None = None
    """Identity provider to sign in with (`DANLU_OIDC_ISSUER`)."""
    oidc_client_id: str = ""
    """Name of this studio at the provider (`DANLU_OIDC_CLIENT_ID`)."""
    oidc_client_secret: str = field(default="", repr=False)
    """Its password there; empty for a public client (`DANLU_OIDC_CLIENT_SECRET`)."""
    oidc_admits_everyone: bool = False
    """Whether whoever the provider knows gets an account, without an invitation (`DANLU_OIDC_NEW_USERS=1`)."""

    @classmethod
    def from_environment(cls) -> "Network":
        """Return the settings of this process."""
        read = os.environ.get
        return cls(
            auth=read("DANLU_AUTH", "") or "auto",
            public_url=read("DANLU_PUBLIC_URL", "").rstrip("/") or None,
            hosts=_names("DANLU_HOSTS"),
            trusted_proxies=_names("DANLU_TRUSTED_PROXIES"),
            allows_plain_http=read("DANLU_PLAIN_HTTP") == "1",
            allow_hosts=_names("DANLU_ALLOW_HOSTS"),
            rate_limit=_count("DANLU_RATE_LIMIT", cls.rate_limit),
            max_waiting_jobs=_count("DANLU_MAX_WAITING_JOBS", cls.max_waiting_jobs),
            max_projects=_count("DANLU_MAX_PROJECTS", cls.max_projects),
            oidc_issuer=read("DANLU_OIDC_ISSUER", "").rstrip("/") or None,
            oidc_client_id=read("DANLU_OIDC_CLIENT_ID", ""),
            oidc_client_secret=read("DANLU_OIDC_CLIENT_SECRET", ""),
            oidc_admits_everyone=read("DANLU_OIDC_NEW_USERS") == "1",
        )


@dataclass(frozen=True)
class Settings:
    """Read once from `DANLU_*` environment variables."""

    home: Path
    """Folder that holds runs and caches (`DANLU_HOME`, default `~/.danlu`)."""
    trackers: tuple[str, ...] = ()
    """Trackers that follow every run (`DANLU_TRACK`, names with commas; none by default)."""

    price_per_hour: float | None = None
    """What an hour of this machine costs, in any currency (`DANLU_PRICE_PER_HOUR`); forecasts and reports then tell money."""

    database: str | None = None
    """URL of the database (`DANLU_DATABASE_URL`, e.g. `postgresql+psycopg://user:password@host/danlu`); by default a SQLite file in the home folder."""

    roots: tuple[Path, ...] = ()
    """Folders whose data files and models administrators may name by path, besides `data` and `models` in the home folder (`DANLU_ROOTS`, with colons)."""

    artifacts: str | None = None
    """Where datasets, models and exports are kept (`DANLU_ARTIFACT_URL`: a folder, `s3://bucket/folder`, `gs://...`, `az://...`); by default in the home."""

    min_free_bytes: int = 512 * 1024 * 1024
    """What is always left free on the disk (`DANLU_MIN_FREE_BYTES`)."""

    project_quota_bytes: int | None = None
    """How much the data, models and exports of one project may take (`DANLU_PROJECT_QUOTA_BYTES`); no limit by default."""

    misunderstood: tuple[str, ...] = ()
    """Limits that are set to something else than a number of bytes; the platform refuses to open with them."""
    network: Network = Network()
    """How the studio is reached and who may enter."""
    log_format: str = "plain"
    """How the server and the worker log (`DANLU_LOG_FORMAT`): `plain` for people, `json` for programs."""

    log_level: str = "INFO"
    """What they log (`DANLU_LOG_LEVEL`): DEBUG, INFO, WARNING or ERROR."""

    smtp_url: str | None = None
    """Mail server for notices (`DANLU_SMTP_URL`): `smtp://user:password@host:587` (STARTTLS), `smtps://...` or, without either, `smtp+plain://host:25`."""

    mail_from: str = "danlu@localhost"
    """Sender of notices (`DANLU_MAIL_FROM`)."""
    worker_slots: int | None = None
    """Jobs that run at a time (`DANLU_WORKER_SLOTS`); by default one for each GPU, or one."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """Return the settings of this process."""
        home = Path(os.environ.get("DANLU_HOME") or "~/.danlu").expanduser().absolute()  # jobs run in other folders
        return cls(
            home=home,
            trackers=_names("DANLU_TRACK"),
            price_per_hour=_price(os.environ.get("DANLU_PRICE_PER_HOUR", "")),
            database=os.environ.get("DANLU_DATABASE_URL") or None,
            roots=tuple(Path(name).expanduser().resolve() for name in os.environ.get("DANLU_ROOTS", "").split(os.pathsep) if name.strip()),
            artifacts=os.environ.get("DANLU_ARTIFACT_URL") or None,
            min_free_bytes=cls.min_free_bytes if (free := _bytes("DANLU_MIN_FREE_BYTES")) is None else free,
            project_quota_bytes=_bytes("DANLU_PROJECT_QUOTA_BYTES"),
            misunderstood=tuple(name for name in LIMITS if os.environ.get(name, "").strip() and _bytes(name) is None),
            network=Network.from_environment(),
            log_format="json" if os.environ.get("DANLU_LOG_FORMAT", "").strip().lower() == "json" else "plain",
            log_level=_level(os.environ.get("DANLU_LOG_LEVEL", "")),
            smtp_url=os.environ.get("DANLU_SMTP_URL") or None,
            mail_from=os.environ.get("DANLU_MAIL_FROM") or "danlu@localhost",
            worker_slots=_slots(os.environ.get("DANLU_WORKER_SLOTS", "")),
        )

    @property
    def database_url(self) -> str:
        """Where the database is."""
        return self.database or f"sqlite:///{self.home / 'danlu.sqlite'}"

    @property
    def artifact_url(self) -> str:
        """Where artifacts are kept."""
        return self.artifacts or str(self.home / "artifacts")

    @property
    def runs_dir(self) -> Path:
        """Folder of run folders."""
        return self.home / "runs"


def _names(variable: str) -> tuple[str, ...]:
    """Words with commas between them."""
    return tuple(filter(None, (name.strip() for name in os.environ.get(variable, "").split(","))))


def _count(variable: str, default: int) -> int:
    """A number of 1 or more; the default for what is none."""
    text = os.environ.get(variable, "").strip()
    return max(1, int(text)) if text.isascii() and text.isdigit() else default


def _price(text: str) -> float | None:
    """A number of 0 or more; what is none is as good as not set, since a forecast must not fail on it."""
    try:
        return max(0.0, float(text)) if text.strip() else None
    except ValueError:
        return None


def _bytes(name: str) -> int | None:
    """A whole number of bytes; None when it is not set, or is no such number."""
    text = os.environ.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _level(text: str) -> str:
    level = text.strip().upper()
    return level if level in ("DEBUG", "INFO", "WARNING", "ERROR") else "INFO"


def _slots(text: str) -> int | None:
    """A number of 1 or more; None for what is none."""
    return int(text) if text.strip().isdigit() and int(text) > 0 else None
