"""Deployment facts only: where things are kept. Nothing here changes the result of a run."""

import os
from dataclasses import dataclass
from pathlib import Path

LIMITS = ("DANLU_MIN_FREE_BYTES", "DANLU_PROJECT_QUOTA_BYTES")


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
    """Where datasets, models and exports are kept (`DANLU_ARTIFACT_URL`: a folder, `s3://bucket/folder`, `gs://...`, `az://...`); by default in the home folder."""

    min_free_bytes: int = 512 * 1024 * 1024
    """What is always left free on the disk (`DANLU_MIN_FREE_BYTES`)."""

    project_quota_bytes: int | None = None
    """How much the data, models and exports of one project may take (`DANLU_PROJECT_QUOTA_BYTES`); no limit by default."""

    misunderstood: tuple[str, ...] = ()
    """Limits that are set to something else than a number of bytes; the platform refuses to open with them."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """Return the settings of this process."""
        trackers = tuple(filter(None, (name.strip() for name in os.environ.get("DANLU_TRACK", "").split(","))))
        home = Path(os.environ.get("DANLU_HOME", "~/.danlu")).expanduser()
        return cls(
            home=home,
            trackers=trackers,
            price_per_hour=_price(os.environ.get("DANLU_PRICE_PER_HOUR", "")),
            database=os.environ.get("DANLU_DATABASE_URL") or None,
            roots=tuple(Path(name).expanduser().resolve() for name in os.environ.get("DANLU_ROOTS", "").split(os.pathsep) if name.strip()),
            artifacts=os.environ.get("DANLU_ARTIFACT_URL") or None,
            min_free_bytes=cls.min_free_bytes if (free := _bytes("DANLU_MIN_FREE_BYTES")) is None else free,
            project_quota_bytes=_bytes("DANLU_PROJECT_QUOTA_BYTES"),
            misunderstood=tuple(name for name in LIMITS if os.environ.get(name, "").strip() and _bytes(name) is None),
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
