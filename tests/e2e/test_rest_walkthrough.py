"""The lines of docs/rest-walkthrough.md, run as a reader runs them: a real server, its worker, curl."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from held_port import held_port

PAGES = ("docs/rest-walkthrough.md", "docs/rest-walkthrough.zh-CN.md")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", page.read_text("utf-8"))


def test_both_pages_have_the_same_lines(repository: Path) -> None:
    english, chinese = (repository / page for page in PAGES)

    for language in ("bash", "python"):
        assert blocks(english, language) == blocks(chinese, language) != []


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_reader_gets_from_the_studio_to_a_finished_run(repository: Path, tmp_path: Path) -> None:
    script = "set -eu\ntrap 'kill %1 2>/dev/null || true' EXIT\n" + "echo ==\n".join(blocks(repository / PAGES[0], "bash"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/danlu").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m danlu "$@"\n')
    (tmp_path / "bin/danlu").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "DANLU_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}

    with held_port() as port:
        script = script.replace("danlu studio --no-open", f"danlu studio --no-open --port {port}").replace("127.0.0.1:8700", f"127.0.0.1:{port}")
        done = subprocess.run(["bash", "-m", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=380)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    *_, stream, proof, after = done.stdout.split("==\n")
    assert "event: point" in stream and stream.rstrip().endswith("data: {}") and "event: end" in stream
    state, verdict = proof.splitlines()[:2]
    told = json.loads((tmp_path / "proof.json").read_text("utf-8"))["verdict"]
    assert (state, verdict) == ("succeeded", told["label"]) and told["text"].keys() == {"en", "zh"}
    assert '"code": "DL710"' in after.replace('":"', '": "')
    report = (tmp_path / "report.html").read_text("utf-8")
    assert report.lower().startswith("<!doctype html>")
    assert [job["state"] for job in json.loads((tmp_path / "jobs.json").read_text("utf-8"))] == ["succeeded"]
    assert json.loads((tmp_path / "preview.json").read_text("utf-8"))
