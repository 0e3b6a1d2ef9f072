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

    @classmethod
    def from_environment(cls) -> "Settings":
        """Return the settings of this process."""
        trackers = tuple(filter(None, (name.strip() for name in os.environ.get("DANLU_TRACK", "").split(","))))
        return cls(home=Path(os.environ.get("DANLU_HOME", "~/.danlu")).expanduser(), trackers=trackers)

    @property
    def runs_dir(self) -> Path:
        """Folder of run folders."""
        return self.home / "runs"
