"""Every operation of the real server, asked with what its description allows and with what it does not: no 500, and answers as described.
Streams are left out, since they last (test_stream.py).

`make fuzz` asks for more (DANLU_FUZZ_EXAMPLES).
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from danlu.api.app import create_app, describe
from danlu.services.platform import projects, runs
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.settings import Settings

NUM_EXAMPLES = int(os.environ.get("DANLU_FUZZ_EXAMPLES", "10"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
OWNER = Actor.local()
pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Platform]:
    """A home with a project and a run in it."""
    home = tmp_path_factory.mktemp("fuzz")
    shutil.copyfile(sqlite_template, home / "danlu.sqlite")
    platform = Platform.open(Settings(home=home))
    yield platform
    platform.close()


@pytest.fixture(scope="module")
def api_schema(fuzzed: Platform) -> Any:
    """What the server says about itself."""
    return schemathesis.openapi.from_asgi("/api/v1/openapi.json", create_app(fuzzed), headers={"Host": "127.0.0.1"})


OPERATIONS = sorted((path, verb) for path, verbs in describe()["paths"].items() for verb in verbs if not path.endswith("/stream"))


def known_ids(platform: Platform) -> dict[str, str]:
    """Ids that exist, so that not every request ends at an unknown one."""
    listed = projects.list_projects(platform, OWNER).items
    project = listed[0] if listed else projects.create_project(platform, OWNER, projects.NewProject(name="p"))
    found = runs.list_runs(platform, OWNER, project.id).items
    recipe = {"base_model": "danlu/tiny", "dataset": "zhangjiajie"}
    run = found[0] if found else runs.submit_run(platform, OWNER, project.id, runs.NewRun(recipe=recipe))
    return {"project_id": project.id, "run_id": run.id, "job_id": runs.list_run_jobs(platform, OWNER, run.id)[0].id}


@pytest.mark.parametrize(("path", "verb"), OPERATIONS, ids=[f"{verb} {path}" for path, verb in OPERATIONS])
def test_no_request_makes_the_server_fail_and_every_answer_is_as_described(path: str, verb: str, api_schema: Any, fuzzed: Platform) -> None:
    operation = api_schema[path][verb]

    @given(case=operation.as_strategy(GenerationMode.POSITIVE) | operation.as_strategy(GenerationMode.NEGATIVE))
    @settings(max_examples=NUM_EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    def ask(case: Any) -> None:
        if crc32(repr(case.path_parameters).encode() + repr(case.query).encode()) % 3:
            ids = known_ids(fuzzed)
            case.path_parameters = {name: ids.get(name, value) for name, value in (case.path_parameters or {}).items()}
        case.call_and_validate(checks=CHECKS, headers={"Host": "127.0.0.1"})

    ask()
