"""Contract of the set-up script: quick when nothing changed, clear when something is missing, never half done."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the script reads."""
    for name in ("scripts/install.sh", "pyproject.toml", "requirements/torch.txt", "requirements/runtime.txt", "requirements/dev.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    return tmp_path


def install(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script with nothing of the caller's choices."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "TORCH", "VENV")}
    # An index that has nothing stands for a machine without a network.
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(checkout), "PIP_CONFIG_FILE": os.devnull}
    return subprocess.run([checkout / "scripts/install.sh"], env=inherited | offline | environment, capture_output=True, text=True)


def test_a_missing_interpreter_is_named_with_what_to_do(checkout: Path) -> None:
    done = install(checkout, PYTHON="python2.7")

    assert done.returncode == 1
    assert "no Python 3.11, 3.12 or 3.13 found (PYTHON=python2.7)" in done.stderr
    assert "fix: install one, or name it: make PYTHON=" in done.stderr
    assert not (checkout / ".venv").exists()


def test_an_unknown_build_of_torch_is_refused(checkout: Path) -> None:
    done = install(checkout, TORCH="rocm")

    assert done.returncode == 1
    assert "use TORCH=auto, TORCH=cpu or TORCH=cuda" in done.stderr


@pytest.mark.slow
def test_a_failed_install_is_not_taken_for_a_finished_one(checkout: Path) -> None:
    first, second = install(checkout), install(checkout)

    assert (first.returncode, second.returncode) == (1, 1)
    assert "pip could not install torch" in first.stderr and "pip could not install torch" in second.stderr
    assert "check the network" in first.stderr
    assert not (checkout / ".venv/danlu-installed").exists()


@pytest.mark.slow
def test_a_cpu_build_that_is_not_offered_is_said_so(checkout: Path) -> None:
    done = install(checkout, TORCH="cpu")

    assert done.returncode == 1
    assert "pip is not offered a CPU build of torch" in done.stderr


def test_a_finished_environment_is_used_again_without_work(checkout: Path) -> None:
    wanted = subprocess.run(
        "echo \"auto $(cat requirements/torch.txt requirements/runtime.txt requirements/dev.txt pyproject.toml | cksum) at $(pwd)\"",
        shell=True, cwd=checkout, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    (checkout / ".venv").mkdir()
    (checkout / ".venv/danlu-installed").write_text(wanted)

    unchanged = install(checkout)
    (checkout / "requirements/runtime.txt").write_text("numpy==1\n")
    changed = install(checkout, PYTHON="python2.7")

    assert (unchanged.returncode, unchanged.stdout, unchanged.stderr) == (0, "", "")
    assert changed.returncode == 1
