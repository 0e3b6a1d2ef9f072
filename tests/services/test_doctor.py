"""`danlu doctor`: what is there, what is wrong with it, what each extra would add; nothing is changed."""

import json
import re
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from danlu.cli.main import main
from danlu.services.doctor import EXTRAS, Check, examine
from danlu.services.platform.platform import Platform
from danlu.settings import Settings
from danlu.store import schema


@pytest.fixture
def no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a torch that does not load before the real one, for the process that tries it."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/torch.py").write_text("raise ImportError('libtorch.so: undefined symbol')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))


def found(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in examine(settings).checks}


def test_the_extras_are_those_of_the_package(repository: Path) -> None:
    extras = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    modules = {"psycopg[binary]": "psycopg", "mlflow-skinny": "mlflow"}
    packages = {
        name: {
            modules.get(package, package.replace("-", "_"))
            for package in (re.split(r"[>=<;]", entry)[0] for entry in entries)
            if not package.startswith("danlu[")
        }
        for name, entries in extras.items()
    }

    assert {name: set(wanted) for name, (wanted, _, _) in EXTRAS.items()} == {name: wanted for name, wanted in packages.items() if wanted}


def test_a_machine_that_is_ready(platform: Platform, no_torch: None) -> None:
    checks = found(platform.settings)

    assert checks["home"] == Check("home", "ok", str(platform.home))
    assert checks["database"].state == "ok" and str(schema.newest()) in checks["database"].found
    assert re.fullmatch(r"[\d.]+ of [\d.]+ GiB free", checks["disk"].found) and re.fullmatch(r"[\d.]+ of [\d.]+ GiB free", checks["memory"].found)
    assert checks["python"] == Check("python", "ok", ".".join(map(str, sys.version_info[:3])))


def test_nothing_is_made_where_nothing_is(tmp_path: Path, no_torch: None) -> None:
    checks = found(Settings(home=tmp_path / "none"))

    assert (checks["home"].state, checks["home"].en) == ("ok", "not made yet")
    assert (checks["database"].state, checks["database"].en) == ("ok", "not made yet")
    assert not (tmp_path / "none").exists()


def test_a_torch_that_does_not_load_is_said_with_its_reason(tmp_path: Path, no_torch: None) -> None:
    check = found(Settings(home=tmp_path))["torch"]

    assert (check.state, check.found) == ("failed", "ImportError: libtorch.so: undefined symbol")
    assert "TORCH=cpu" in check.fix


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path, no_torch: None) -> None:
    (tmp_path / "file").write_text("")

    check = found(Settings(home=tmp_path / "file/home"))["home"]

    assert check.state == "failed" and "cannot be written" in check.en and "DANLU_HOME" in check.fix


def test_tables_of_another_version_are_said_and_left_as_they_are(platform: Platform, no_torch: None) -> None:
    schema.downgrade(platform.database, "base")

    check = found(platform.settings)["database"]

    assert check.state == "warning" and "danlu studio" in check.fix
    assert schema.revision(platform.database) is None


def test_a_damaged_or_absent_database_is_said(platform: Platform, tmp_path: Path, no_torch: None) -> None:
    (tmp_path / "danlu.sqlite").write_bytes(b"no database at all" * 100)

    assert found(Settings(home=tmp_path))["database"].state == "failed"
    away = replace(platform.settings, database="postgresql+psycopg://danlu:hush@127.0.0.1:9/danlu")
    check = found(away)["database"]
    assert check.state == "failed" and "DANLU_DATABASE_URL" in check.fix and "hush" not in repr(check)


@pytest.mark.parametrize(("language", "said"), [("en", "Something is wrong"), ("zh", "有问题")])
def test_the_command_prints_it_and_fails_when_something_is_wrong(
    language: str, said: str, no_torch: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DANLU_LANG", language)
    monkeypatch.setattr(sys, "argv", ["danlu", "doctor"])

    with pytest.raises(SystemExit) as end:
        main()

    assert end.value.code == 1 and said in capsys.readouterr().out


def test_the_command_is_readable_by_programs(no_torch: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["danlu", "doctor", "--json"])

    with pytest.raises(SystemExit):
        main()

    told = json.loads(capsys.readouterr().out)
    assert told["is_ready"] is False and {"name", "state", "found", "en", "zh", "fix"} == set(told["checks"][0])
    assert {extra["name"]: extra["is_installed"] for extra in told["extras"]}["studio"] is True
