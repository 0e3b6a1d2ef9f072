"""The tutorial is true: its commands run in order, in an empty folder, and print what the text says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

DOCS = Path(__file__).parents[2] / "docs"
TUTORIALS = ("tutorial.md", "tutorial.zh-CN.md")


def blocks(page: str) -> list[str]:
    """The fenced `sh` blocks of a page, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", (DOCS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_tutorials_have_the_same_commands() -> None:
    assert blocks(TUTORIALS[0]) == blocks(TUTORIALS[1])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_commands_of_the_tutorial_run_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    environment = os.environ | {
        "DANLU_HOME": str(tmp_path / "home"),
        "DANLU_LANG": "en",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(DOCS.parent / "src"),
    }
    printed = ""

    for block in blocks(TUTORIALS[0]):
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        printed += done.stdout

    reports = {name: orjson.loads((folder / name / "report.json").read_bytes()) for name in ("bakery-run", "bakery-rank-2", "bakery-long")}
    rows = reports["bakery-run"]["rows"]
    assert (rows["rows_in"], rows["used"], rows["dropped"], rows["duplicate"]) == (23, 20, 2, 1)
    assert rows["splits"]["test"] == 5
    assert "too_few_test_rows" in [warning["code"] for warning in reports["bakery-run"]["warnings"]]
    dropped = [orjson.loads(line) for line in (folder / "bakery-run/data/dropped.jsonl").read_bytes().splitlines()]
    assert {entry["line"] for entry in dropped} == {21, 22, 23}
    assert reports["bakery-rank-2"]["recipe"]["method"]["rank"] == 2
    assert reports["bakery-long"]["state"] == "finished"
    assert orjson.loads((folder / "report.json").read_bytes())["verdict"]["label"] == "improved"
    assert (folder / "bakery-model/model.safetensors").is_file() and (folder / "bakery-adapter/adapter_model.safetensors").is_file()
    assert printed.count("Exported and verified") == 2
