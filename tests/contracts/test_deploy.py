"""Contract of what installs Danlu elsewhere: the image, compose, the systemd unit, the wheelhouse. Nothing is built or downloaded."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from danlu.cli.main import app

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
PAGES = ("docs/install.md", "docs/install.zh-CN.md")
SECRET = re.compile(r"(?i)(password|secret|token|key)\w*[\"']?\s*[:=]\s*(?!\$\{)[^\s#]*\w")


def instructions() -> list[tuple[str, str]]:
    """(name, rest) of the Dockerfile's instructions, continued lines joined, comments left out."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text("utf-8")).replace("\\\n", " ")
    return [(name, rest.strip()) for name, rest in (line.split(maxsplit=1) for line in text.splitlines() if line.strip())]


def of(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


def takes(words: list[str]) -> bool:
    """Whether the command line has this command with these options."""
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "get_command"):
        command = command.get_command(typer.Context(command), words.pop(0))
    options = {option for parameter in getattr(command, "params", []) for option in (*parameter.opts, *parameter.secondary_opts)}
    return command is not None and {word for word in words if word.startswith("--")} <= options


def test_everything_the_image_copies_exists_and_is_let_through() -> None:
    let_through = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copied = {source for rest in of("COPY") if not rest.startswith("--from") for source in rest.split()[:-1]}

    assert copied == let_through and {"src", "requirements/runtime.txt"} <= copied
    assert [source for source in copied if not (REPOSITORY / source).exists()] == []


def test_the_image_runs_as_a_user_without_rights_and_holds_no_secret() -> None:
    names = [name for name, _ in instructions()]

    assert of("USER") == ["10001:10001"] and names.index("USER") > max(place for place, name in enumerate(names) if name == "RUN")
    assert not SECRET.search((DEPLOY / "Dockerfile").read_text("utf-8"))
    assert "DANLU_AUTH=users" in " ".join(of("ENV"))
    assert [rest for rest in of("FROM") if ":latest" in rest or ":" not in rest] == []


def test_packages_of_the_image_come_from_the_lock_files() -> None:
    installs = [part for rest in of("RUN") for part in re.split(r"&&|;", rest) if "pip install" in part]

    assert len(installs) == 4
    assert all("--no-deps" in part or '"torch===$pin"' in part for part in installs)


def test_the_command_of_the_image_exists_and_its_port_is_the_one_that_is_shown() -> None:
    command = [*json.loads(of("ENTRYPOINT")[0]), *json.loads(of("CMD")[0])]

    assert command[0] == "danlu" and takes(command[1:])
    port = command[command.index("--port") + 1]
    assert of("EXPOSE") == [port] and f":{port}/healthz" in of("HEALTHCHECK")[0]
    assert compose()["services"]["studio"]["ports"] == [f"127.0.0.1:${{DANLU_PORT:-{port}}}:{port}"]


def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))


def test_every_service_of_compose_is_hardened_and_only_this_machine_is_listened_to() -> None:
    services = compose()["services"]

    known = {"build", "cap_add", "cap_drop", "command", "depends_on", "entrypoint", "environment", "healthcheck", "image", "init", "logging", "ports"}
    known |= {"profiles", "read_only", "restart", "security_opt", "shm_size", "stop_grace_period", "tmpfs", "volumes"}
    for service in services.values():
        assert set(service) <= known
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert {name: service.get("profiles") for name, service in services.items()} == {
        "studio": None,
        "database": ["platform"],
        "objects": ["platform"],
        "bucket": ["platform"],
    }
    assert all(wanted["required"] is False for wanted in services["studio"]["depends_on"].values())


def test_the_home_is_the_volume_and_nothing_else_is_written() -> None:
    image = dict(word.split("=", 1) for rest in of("ENV") for word in shlex.split(rest))
    unit = dict(line.split("=", 1) for line in (DEPLOY / "danlu.service").read_text("utf-8").splitlines() if "=" in line and not line.startswith("#"))
    studio = compose()["services"]["studio"]

    assert [image["DANLU_HOME"]] == of("VOLUME") == of("WORKDIR")[-1:] and studio["volumes"] == [f"home:{image['DANLU_HOME']}"]
    assert studio["read_only"] is True and [place.partition(":")[0] for place in studio["tmpfs"]] == [studio["environment"]["TMPDIR"]]
    assert f"DANLU_HOME=/var/lib/{unit['StateDirectory']} TMPDIR=/var/cache/{unit['CacheDirectory']} " in f"{unit['Environment']} "
    assert {"User": unit["User"], "Type": unit["Type"]} == {"User": "danlu", "Type": "exec"}


def test_the_health_check_asks_for_what_the_server_answers() -> None:
    from danlu.api import health

    asked = re.findall(r"http://127\.0\.0\.1:8700(/\w+)", of("HEALTHCHECK")[0])
    assert asked == ["/healthz"] and '"/healthz"' in Path(health.__file__).read_text("utf-8")


def test_compose_refers_to_what_is_there() -> None:
    content = compose()
    used = {mount.split(":")[0] for service in content["services"].values() for mount in service.get("volumes", [])}

    assert used == set(content["volumes"])
    assert {name for service in content["services"].values() for name in service.get("depends_on", {})} <= set(content["services"])
    build = content["services"]["studio"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()


def test_compose_takes_every_secret_from_the_environment_file() -> None:
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    asked = set(re.findall(r"(?<!\$)\$\{(\w+)", text))
    offered = {line.split("=")[0] for line in (DEPLOY / "example.env").read_text("utf-8").splitlines() if re.match(r"\w+=", line)}

    # DANLU_DATABASE_PASSWORD also stands inside the URL.
    assert asked - {"DANLU_PORT"} == offered
    assert not SECRET.search(text)
    assert re.findall(r"(?m)^\w*PASSWORD=(.*)$", (DEPLOY / "example.env").read_text("utf-8")) == ["", ""]


def test_every_setting_that_compose_passes_on_is_one_and_its_store_is_in_the_image() -> None:
    settings = (REPOSITORY / "src/danlu/settings.py").read_text("utf-8")
    passed = set(compose()["services"]["studio"]["environment"])
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]

    assert [name for name in passed if name.startswith("DANLU_") and name not in settings] == []
    assert "DANLU_ARTIFACT_URL=s3://" in (DEPLOY / "example.env").read_text("utf-8") and "s3" in re.findall(r"\w+", extras["all"][0])


def test_the_unit_starts_a_command_that_exists_and_leaves_jobs_alone() -> None:
    unit = (DEPLOY / "danlu.service").read_text("utf-8")
    words = shlex.split(re.findall(r"(?m)^ExecStart=(.*)$", unit)[0])

    assert Path(words[0]).name == "danlu" and takes(words[1:])
    assert {"KillMode=process", "NoNewPrivileges=yes", "ProtectSystem=strict", "UMask=0077"} <= set(unit.splitlines())
    assert "RemoveIPC=no" in unit.splitlines()  # a restart would take the shared memory of jobs that go on
    assert "PrivateTmp" not in re.sub("#.*", "", unit) and "TMPDIR=/var/cache/danlu" in unit
    assert not SECRET.search(unit)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_systemd_accepts_the_unit_and_finds_it_hardened(tmp_path: Path) -> None:
    copy = tmp_path / "danlu.service"
    copy.write_text((DEPLOY / "danlu.service").read_text("utf-8").replace("/usr/local/danlu/bin/danlu", "/bin/true"))

    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True)
    exposed = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--threshold=30", copy], capture_output=True, text=True)

    assert (verified.returncode, verified.stderr) == (0, "")
    assert exposed.returncode == 0, exposed.stdout


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_say_how(page: str) -> None:
    text = (REPOSITORY / page).read_text("utf-8")
    lines = [
        "docker build --file deploy/Dockerfile --tag danlu .",
        "docker compose --file deploy/compose.yaml --profile platform up --detach",
        "scripts/wheelhouse.sh collect wheelhouse",
        "sh wheelhouse/wheelhouse.sh install wheelhouse",
        "deploy/danlu.service",
        "danlu doctor",
    ]

    assert [line for line in lines if line not in text] == []


# --- wheelhouse


def wheelhouse(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PYTHON": sys.executable}
    return subprocess.run([REPOSITORY / "scripts/wheelhouse.sh", *map(str, words)], env=os.environ | offline | environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "too few words"),
        (["collect"], "too few words"),
        (["fetch", "folder"], "fetch is not known"),
        (["collect", "a", "b"], "too many words"),
        (["install", "a", "b", "c"], "too many words"),
    ],
    ids=str,
)
def test_wrong_words_are_told_with_the_right_ones(words: list[str], said: str) -> None:
    done = wheelhouse(*words)

    assert done.returncode == 2 and said in done.stderr and "collect FOLDER, or install FOLDER" in done.stderr


def test_what_cannot_be_collected_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    assert "is no Python 3.11, 3.12 or 3.13" in wheelhouse("collect", tmp_path / "a", PYTHON="python2.7").stderr
    assert "TORCH=rocm is not known" in wheelhouse("collect", tmp_path / "a", TORCH="rocm").stderr
    assert f"{tmp_path} exists" in wheelhouse("collect", tmp_path).stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_wheelhouse_is_refused(tmp_path: Path) -> None:
    done = wheelhouse("install", tmp_path, tmp_path / "venv")

    assert done.returncode == 1 and "has no SHA256SUMS" in done.stderr and not (tmp_path / "venv").exists()


@pytest.mark.slow
def test_a_wheelhouse_is_installed_without_an_index_and_only_as_it_was_collected(tmp_path: Path) -> None:
    """Of Danlu's own wheel alone: the others need a network to be collected."""
    import hashlib
    import sysconfig

    folder = tmp_path / "wheelhouse"
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, REPOSITORY]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(wheel.read_bytes()).hexdigest()} {wheel.name}\n")
    (folder / "MADE-FOR").write_text(f"python {sys.version_info[0]}.{sys.version_info[1]} {sysconfig.get_platform()}\n")

    done = wheelhouse("install", folder, tmp_path / "venv")
    assert done.returncode == 0, done.stderr
    assert re.match(r"danlu \d+\.\d+", done.stdout)

    (folder / "other-1.0-py3-none-any.whl").write_bytes(b"")
    assert "are not those that were collected" in wheelhouse("install", folder, tmp_path / "second").stderr
    (folder / "MADE-FOR").write_text("python 3.9 macosx\n")
    assert "was made for python 3.9 macosx" in wheelhouse("install", folder, tmp_path / "second").stderr
    assert not (tmp_path / "second").exists()
