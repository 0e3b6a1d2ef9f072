"""The entry to everything: a studio on this machine's home folder, or one on a server.

studio = Studio.open()                                     # or Studio.connect("https://host", token="dl_...")
run = studio.runs.submit(Recipe(base_model="danlu/tiny", dataset="danlu/zhangjiajie"))
run.wait(on_step=print)
print(run.report().verdict)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Self

from danlu.client.http import HttpTransport
from danlu.client.jobs import Jobs
from danlu.client.local import LocalTransport
from danlu.client.projects import Projects
from danlu.client.runs import Runs
from danlu.client.transport import Transport
from danlu.services.platform.platform import Platform
from danlu.settings import Settings


class Studio:
    """Projects, datasets, runs, jobs, models of one home or one server. Use it in a `with` block, or close it."""

    def __init__(self, transport: Transport, *, project: str | None = None) -> None:
        self.transport = transport
        self.default_project = project
        """Project (id or name) that is meant where none is named."""
        self.projects = Projects(self)
        self.runs = Runs(self)
        self.jobs = Jobs(self)

    @classmethod
    def open(cls, path: str | Path | None = None, *, project: str | None = None, worker: bool = True) -> Self:
        """Open a home folder of this machine, and make it when there is none.

        Without a path it is `DANLU_HOME`, by default `~/.danlu`. Jobs need a worker: where no `danlu studio` or `danlu worker` looks after the
        home, one is started with the first job. It goes on when this program ends, and ends itself when the queue is empty; `worker=False`
        starts none.

        Raises:
            DatabaseError: the database cannot be used, or was written by a newer version.
            StorageError: the folder cannot be written.
        """
        settings = Settings.from_environment()
        if path is not None:
            settings = replace(settings, home=Path(path).expanduser().absolute())
        return cls(LocalTransport(Platform.open(settings), starts_worker=worker), project=project)

    @classmethod
    def connect(cls, url: str, token: str | None = None, *, project: str | None = None, timeout_seconds: float = 30.0) -> Self:
        """Use a server. `token` is an API key (`dl_...`); a studio on this machine for one user needs none.

        Raises:
            NoEffectError: the address is none.
        """
        return cls(HttpTransport(url, token, timeout_seconds=timeout_seconds), project=project)

    def project_id(self, project: str | None = None) -> str:
        """Id of a project named by id or name; of the default one; of the only one there is; of a new one called `default` where there is none.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: several could be meant.
        """
        return self.projects.find_id(project or self.default_project)

    def close(self) -> None:
        """Close files and connections. Jobs go on."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Studio {self.transport.where}>"
