"""The command line over a local home and over a server: the same commands, the same answers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from danlu.cli.main import main
from danlu.services.platform.platform import Platform
from danlu.store import queue

Danlu = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=["local", "http"])
def danlu(request: pytest.FixtureRequest, platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Danlu:
    """Run a command on the platform's home, or on a server over it; give code, output, and error output."""
    for name, value in {"DANLU_LANG": "en", "COLUMNS": "200", "DANLU_HOME": str(platform.home)}.items():
        monkeypatch.setenv(name, value)
    if request.param == "http":
        monkeypatch.setenv("DANLU_SERVER", request.getfixturevalue("url"))
        monkeypatch.setenv("DANLU_HOME", str(platform.home / "another"))  # must not be looked at

    def run(*words: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["danlu", *words])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture
def busy(platform: Platform) -> Any:
    """Hold the home's worker lock and be its worker, so that none is started."""
    import socket

    from danlu.executors.processes import start_time
    from danlu.store import workers

    home, started = workers.home_id(platform.database, platform.home), start_time(os.getpid()) or 0
    with platform.database.writing() as connection:
        workers.register(connection, workers.Worker("wrk_t", socket.gethostname(), home, str(platform.home), os.getpid(), started, 1, 0.0, 0.0))


def test_a_project_is_made_shown_changed_and_deleted(danlu: Danlu) -> None:
    made = json.loads(danlu("projects", "create", "--name", "support", "--description", "help desk", "--json")[1])

    assert made["name"] == "support" and set(made) >= {"id", "created_at", "version"}
    changed = json.loads(danlu("projects", "change", made["id"], "--is-archived", "--version", "1", "--json")[1])
    assert changed["is_archived"] is True and changed["description"] == "help desk"
    assert json.loads(danlu("projects", "list", "--json")[1]) == {"items": [changed], "next": None}
    code, shown, _ = danlu("projects", "list")
    assert code == 0 and made["id"] in shown and "support" in shown
    assert "help desk" in danlu("projects", "show", made["id"])[1]
    assert danlu("projects", "delete", made["id"])[:2] == (0, "Done.\n")
    assert danlu("projects", "list")[:2] == (0, "Nothing there.\n")


def test_errors_have_their_exit_codes(danlu: Danlu) -> None:
    code, out, err = danlu("projects", "show", "prj_0")

    assert (code, out) == (9, "")
    assert "DL710: there is no such project" in err and "docs/errors.md#dl710" in err
    code, _, err = danlu("projects", "create", "--name", "")
    assert code == 2 and "--name: String should have at least 1 character" in err
    assert danlu("projects", "create")[0] == 2
    assert danlu("projects", "list", "--limit", "many")[0] == 2


def test_a_run_is_submitted_seen_in_the_queue_and_cancelled(danlu: Danlu, platform: Platform, busy: None, log_of: Any) -> None:
    run = json.loads(danlu("submit", "danlu/zhangjiajie", "--method.rank", "3", "--name", "first", "--priority", "saver", "--at", "2099-01-01", "--json")[1])
    [job] = json.loads(danlu("queue", "--json")[1])
    log_of(job["id"], 0, "hello \x1b[31mred\n")

    assert run["recipe"]["method"]["rank"] == 3 and (job["run_id"], job["priority"], job["state"]) == (run["id"], "saver", "queued")
    assert json.loads(danlu("runs", "list", "--json")[1])["items"] == [run]
    assert job["id"] in danlu("queue")[1] and "2099-01-01 00:00:00" in danlu("queue")[1]
    assert danlu("logs", job["id"])[1] == danlu("logs", run["id"])[1] == "hello \\x1b[31mred\n"
    assert json.loads(danlu("logs", job["id"], "--json")[1]) == {"text": "hello \x1b[31mred\n"}
    assert json.loads(danlu("cancel", job["id"], "--json")[1])["state"] == "cancelled"
    assert danlu("queue")[1] == "Nothing there.\n"
    with platform.database.reading() as connection:
        assert queue.unfinished(connection) == []


def test_a_data_file_is_brought_in_once_and_named_exactly(danlu: Danlu, busy: None, tmp_path: Path) -> None:
    rows_file = tmp_path / "bakery.jsonl"
    rows_file.write_text('{"instruction": "Closed?", "output": "At six."}\n')
    first, second = (json.loads(danlu("submit", "--data", str(rows_file), "--json")[1]) for _ in range(2))
    with rows_file.open("a") as file:
        file.write('{"instruction": "Open?", "output": "At seven."}\n')
    third = json.loads(danlu("submit", "--data", str(rows_file), "--json")[1])

    assert [run["recipe"]["dataset"] for run in (first, second, third)] == ["bakery@1", "bakery@1", "bakery@2"]


def test_a_structured_value_is_json_or_a_file(danlu: Danlu, tmp_path: Path, busy: None) -> None:
    recipe = {"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie"}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))

    first = json.loads(danlu("runs", "submit", "--recipe", json.dumps(recipe), "--json")[1])
    second = json.loads(danlu("runs", "submit", "--recipe", f"@{tmp_path / 'r.yaml'}", "--project", "default", "--json")[1])

    assert first["recipe"] == second["recipe"] and first["project_id"] == second["project_id"]
    code, _, err = danlu("runs", "submit", "--recipe", "{cut")
    assert code == 2 and "--recipe" in err


def test_the_run_folders_are_still_listed(danlu: Danlu) -> None:
    assert danlu("runs", "--json")[:2] == (0, "[]\n")


def test_a_server_that_is_not_there_has_its_exit_code(platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["danlu", "projects", "list", "--server", "no-address"])

    with pytest.raises(SystemExit) as end:
        main()

    assert end.value.code == 2 and "DL102" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "offered"), [("danlu pro", "projects"), ("danlu projects ch", "change"), ("danlu queue --ser", "--server")])
def test_the_shell_completes_commands_of_groups_too(words: str, offered: str) -> None:
    environment = os.environ | {"_DANLU_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}

    done = subprocess.run([sys.executable, "-m", "danlu"], env=environment, capture_output=True, text=True, timeout=60)

    assert offered in done.stdout.split()


def test_help_of_the_whole_loads_neither_the_database_nor_the_web() -> None:
    code = "import sys; sys.argv = ['danlu', '--help']\nfrom danlu.cli.main import main\ntry:\n    main()\nexcept SystemExit: pass\n"
    code += "print(sorted({'sqlalchemy', 'fastapi', 'httpx', 'alembic'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "projects" in done.stdout and done.stdout.endswith("[]\n")


@pytest.mark.parametrize(("command", "package"), [("studio", "nicegui"), ("backup", "sqlalchemy"), ("queue", "sqlalchemy")])
def test_a_package_that_is_not_installed_is_told_with_its_extra(command: str, package: str, tmp_path: Path) -> None:
    words = ["danlu", command, *([str(tmp_path / "b")] if command == "backup" else [])]
    code = f"import sys; sys.modules[{package!r}] = None; sys.argv = {words}\nfrom danlu.cli.main import main\nmain()"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"DANLU_LANG": "en"})

    assert done.returncode == 8 and "pip install 'danlu[studio]'" in done.stderr, done.stderr
