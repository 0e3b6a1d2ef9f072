"""Contract of the package: it builds without the network, holds its data and nothing else, and runs outside the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, REPOSITORY]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(folder.glob("danlu-*.whl"))


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    package = REPOSITORY / "src"
    expected = {str(path.relative_to(package)) for path in (package / "danlu").rglob("*") if path.is_file() and "__pycache__" not in path.parts}

    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert names == expected
    assert "danlu/bundled/examples/zhangjiajie.jsonl" in names


def test_the_wheel_carries_its_licence_and_the_type_marker(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "danlu/py.typed" in names


def test_the_installed_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel], check=True, capture_output=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    # The target folder comes before the editable install of the checkout.
    environment = os.environ | {"PYTHONPATH": str(target)}

    shown = [
        subprocess.run([sys.executable, *arguments], cwd=elsewhere, env=environment, capture_output=True, text=True, check=True).stdout
        for arguments in (["-c", "import danlu; print(danlu.__file__)"], ["-m", "danlu", "--version"], ["-m", "danlu", "recipe", "schema"])
    ]

    assert shown[0].startswith(str(target))
    assert shown[1].startswith("danlu ")
    assert '"base_model"' in shown[2]
