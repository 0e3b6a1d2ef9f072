"""Deployment facts only: where things are kept. Nothing here changes the result of a run."""

import os
from dataclasses import dataclass
from pathlib import Path


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
        )

    @property
    def database_url(self) -> str:
        """Where the database is."""
        return self.database or f"sqlite:///{self.home / 'danlu.sqlite'}"

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
