"""The notebook is true: its cells run in order on a CPU, and what is committed holds no output."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks/danlu_quickstart.ipynb"


def cells(kind: str) -> list[str]:
    """Sources of the cells of a kind."""
    return ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def test_no_output_is_committed() -> None:
    code = [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]

    assert len(code) >= 8
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []


def test_every_text_is_in_both_languages() -> None:
    assert [text for text in cells("markdown") if not (re.search("[\u4e00-\u9fff]{4}", text) and re.search("[a-z]{4} [a-z]{2}", text))] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    source = str(NOTEBOOK.parents[1] / "src")
    for name, value in {
        "DANLU_NOTEBOOK_MODEL": "danlu/tiny",
        "DANLU_NOTEBOOK_STEPS": "3",
        "DANLU_LANG": "en",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH")))),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "jupyter"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)

    nbclient.NotebookClient(notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()

    printed = text_of(notebook)
    report = json.loads((tmp_path / "danlu-run/report.json").read_text("utf-8"))
    assert report["verdict"]["text"]["en"] in printed and report["verdict"]["text"]["zh"] in printed
    assert "Exported and verified" in printed and (tmp_path / "my-model/model.safetensors").is_file()
    assert "User" in printed and "<iframe srcdoc=" in printed


def text_of(notebook: Any) -> str:
    """Everything the cells printed or showed."""
    parts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            parts.append(output.get("text") or "".join(output.get("data", {}).values()))
    return "".join(parts)
