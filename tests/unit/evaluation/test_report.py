import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from danlu.evaluation import caveats
from danlu.evaluation.report import build
from danlu.evaluation.report.charts import nice_ticks
from danlu.evaluation.report.curves import smoothed, thinned
from danlu.files import read_json, write_json
from danlu.recipe.recipe import Recipe
from danlu.run_dir import RunDir

MakeRun = Callable[..., RunDir]
KEYS = ["schema_version", "run_id", "state", "created", "verdict", "metrics", "retention", "rounds", "heldout", "warnings", "coach", "rows", "encoded"]
KEYS += ["training", "timing", "memory", "forecast", "disk", "reasons", "base_model", "recipe", "fingerprint", "environment", "samples", "examples"]


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.model_validate({"base_model": "danlu/tiny", "dataset": "<b>&data</b>.jsonl", "data": {"max_seq_len": 512}})


class Tags(HTMLParser):
    """Collects every tag with its attributes and checks that they nest."""

    void = frozenset({"meta", "line", "circle", "polyline", "br", "img", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags_of(html: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(html)
    assert not parser.open
    return parser.found


def test_report_json_has_its_schema_and_no_nan(make_run: MakeRun, recipe: Recipe) -> None:
    run_dir = make_run()
    report = build(recipe, run_dir)
    stored = read_json(run_dir.report_json)
    assert list(stored) == KEYS
    assert json.dumps(stored, allow_nan=False) and stored == json.loads(json.dumps(report))
    assert stored["verdict"]["label"] == "improved" and stored["verdict"]["num_examples"] == 42
    assert set(stored["metrics"]["rouge_l"]) >= {
        "base",
        "tuned",
        "delta",
        "ci",
        "p",
        "higher_is_better",
        "unit",
        "num_examples",
        "wins",
        "ties",
        "losses",
        "version",
    }
    assert [w["code"] for w in stored["warnings"]] == ["memorised", "generation_cut"]
    assert stored["training"]["first_loss"] > stored["training"]["last_loss"]
    assert len(stored["examples"]["best"]) == len(stored["examples"]["worst"]) == 5
    changes = [case["nll_per_token"]["delta"] for case in stored["examples"]["best"] + stored["examples"]["worst"][::-1]]
    assert changes == sorted(changes)


def test_the_page_asks_nothing_from_anywhere_and_runs_only_its_own_script(make_run: MakeRun, recipe: Recipe) -> None:
    run_dir = make_run()
    build(recipe, run_dir)
    html = run_dir.report_html.read_text("utf-8")
    tags = tags_of(html)
    assert not re.search(r"(https?:)?//[a-z]", html.replace("http://www.w3.org/2000/svg", ""), re.IGNORECASE)
    assert not [attrs for _, attrs in tags if {"src", "href", "action", "srcset"} & set(attrs)]
    assert not [name for _, attrs in tags for name in attrs if name.startswith("on")]
    assert [tag for tag, _ in tags].count("script") == 1
    policy = next(attrs["content"] for tag, attrs in tags if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy and "script-src 'sha256-" in policy and "unsafe-inline'; script" in policy


ATTACK = "</span><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}{% raw %}"


def test_what_data_holds_is_text_never_markup(make_run: MakeRun, recipe: Recipe) -> None:
    run_dir = make_run(prediction=ATTACK)
    lines = run_dir.data.joinpath("test.jsonl").read_text("utf-8").replace("你是张家界的导游", "<script>alert(3)</script>").splitlines()
    run_dir.data.joinpath("test.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    write_json(run_dir.data / "accounting.json", {"rows_in": 1, "dropped": 1, "reasons": {"dropped": {"<svg onload=alert(4)>": 1}}})
    run_dir.update_record(environment={"<i>x</i>": "<u>y</u>", "device": "cpu"})
    build(recipe, run_dir)
    html = run_dir.report_html.read_text("utf-8")
    tags = tags_of(html)
    assert [tag for tag, _ in tags].count("script") == 1
    assert not {"img", "u"} & {tag for tag, _ in tags}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html and "{{ 7*7 }}" in html and "&lt;svg onload" in html
    assert not [name for _, attrs in tags for name in attrs if name.startswith("on")]


@pytest.mark.parametrize(
    "options",
    [
        {"is_evaluated": False},
        {"is_evaluated": False, "has_validation": False},
        {"count": 1},
        {"count": 3, "gain": 0.0},
        {"gain": -0.2, "rise": 0.4},
    ],
)
def test_every_kind_of_run_gets_a_page(make_run: MakeRun, recipe: Recipe, options: dict[str, Any]) -> None:
    run_dir = make_run(**options)
    report = build(recipe, run_dir)
    tags_of(run_dir.report_html.read_text("utf-8"))
    codes = {warning["code"] for warning in report["warnings"]}
    assert (report["verdict"] is None) is (options.get("is_evaluated") is False)
    assert ("not_evaluated" in codes) is (options.get("is_evaluated") is False)
    assert ("too_few_test_rows" in codes) is (options.get("count", 42) < 10)
    assert ("retention_forgotten" in codes) is (options.get("rise") == 0.4)


def test_the_forecast_stands_beside_what_was_measured(make_run: MakeRun, recipe: Recipe) -> None:
    run_dir = make_run()
    run_dir.update_record(forecast={"training_seconds": 110.0, "peak_memory_bytes": 700_000_000, "moon_phase": 3})
    build(recipe, run_dir)
    table = run_dir.report_html.read_text("utf-8").split("Forecast against actual")[1].split("</table>")[0]
    assert [shown in table for shown in ("1 min 50 s", "1 min 23 s", "700 MB", "612 MB")] == [True] * 4
    assert "Moon" not in table


def test_the_forecast_of_memory_and_disk_stands_by_part(make_run: MakeRun, recipe: Recipe) -> None:
    run_dir = make_run()
    memory = {"weights_bytes": 300_000_000, "activations_bytes": 400_000_000, "peak_bytes": 700_000_000, "phase": "backward"}
    forecast = {"training_seconds": 90.0, "peak_memory_bytes": 700_000_000, "memory": memory, "disk_bytes": 5000, "disk": {"data_bytes": 5000}}
    run_dir.update_record(forecast=forecast | {"price_per_hour": 3600.0})
    report = build(recipe, run_dir)
    table = run_dir.report_html.read_text("utf-8").split("Forecast against actual")[1].split("</table>")[0]
    assert [shown in table for shown in ("Base model weights", "基座模型权重", "300 MB", "Activations", "400 MB", "Disk", "Money")] == [True] * 7
    assert report["disk"]["disk_bytes"] == sum(f.stat().st_size for f in run_dir.path.rglob("*") if f.is_file() and f.parent.name in ("data", "train.tokens"))


def test_an_empty_run_folder_gets_a_page(tmp_path: Any, recipe: Recipe) -> None:
    run_dir = RunDir.create(tmp_path / "r")
    report = build(recipe, run_dir)
    assert (report["verdict"], report["training"], report["rows"], report["metrics"]) == (None, None, None, {})
    tags_of(run_dir.report_html.read_text("utf-8"))


def test_plain_text_runs_show_their_text(make_run: MakeRun, recipe: Recipe) -> None:
    run_dir = make_run()
    heldout = read_json(run_dir.evaluation / "heldout.json")
    write_json(run_dir.evaluation / "heldout.json", heldout | {"generation": None})
    (run_dir.data / "test.jsonl").write_text("".join(json.dumps({"line": i, "text": f"document {i}"}) + "\n" for i in range(42)), "utf-8")
    report = build(recipe, run_dir)
    assert set(report["metrics"]) == {"nll_per_token", "perplexity", "nll_per_byte"}
    assert report["examples"]["best"][0]["reference"].startswith("document ")


@pytest.mark.parametrize(("kept", "keep_best", "is_lost"), [(20, True, False), (120, True, True), (120, False, False)])
def test_best_weights_that_could_not_be_read_back_are_told(make_run: MakeRun, recipe: Recipe, kept: int, keep_best: bool, is_lost: bool) -> None:
    run_dir = make_run()
    write_json(run_dir.path / "training.json", {"kept_step": kept, "best_step": 20, "step": 120})
    one = recipe.model_copy(update={"training": recipe.training.model_copy(update={"keep_best": keep_best})})
    assert ("best_lost" in {warning["code"] for warning in build(one, run_dir)["warnings"]}) is is_lost


DIAGNOSIS = {
    "name": "learning_rate_too_high", "severity": "warning",
    "what": {"en": "The loss <b>rose</b>.", "zh": "损失上升了。"}, "why": {"en": "Too fast.", "zh": "太快。"}, "fix": {"en": "Slower.", "zh": "慢一点。"},
    "en": "The loss <b>rose</b>. Too fast. Slower.", "zh": "损失上升了。太快。慢一点。",
    "evidence": {"rise": 1.5}, "changes": {"optim.learning_rate": 0.0001},
}  # fmt: skip


def test_the_coach_and_the_samples_have_their_places(make_run: MakeRun, recipe: Recipe) -> None:
    run_dir = make_run()
    rounds = [
        {"kind": "sample", "step": step, "items": [{"prompt": "<i>谁？</i>", "reference": "我", "text": f"answer {step}", "is_cut": False}]}
        for step in range(0, 100, 10)
    ]
    run_dir.events.write_text("".join(json.dumps(event) + "\n" for event in [{"kind": "stage"}, *rounds, rounds[3]]), "utf-8")
    report = build(recipe, run_dir, coach=[DIAGNOSIS])
    html = run_dir.report_html.read_text("utf-8")
    tags_of(html)
    assert report["coach"] == [DIAGNOSIS]
    [sample] = report["samples"]
    assert [answer["step"] for answer in sample["answers"]] == [0, 20, 40, 50, 70, 90]
    assert "optim.learning_rate=0.0001" in html and "The loss &lt;b&gt;rose" in html and "慢一点" in html
    assert "&lt;i&gt;谁" in html and "answer 90" in html and "第 90 步" in html and "answer 10<" not in html


def test_reasons_are_told_in_both_languages(make_run: MakeRun, recipe: Recipe) -> None:
    run_dir = make_run()
    build(recipe, run_dir)
    html = run_dir.report_html.read_text("utf-8")
    assert "empty answer" in html and "回答为空" in html


def test_long_curves_are_thinned_without_losing_their_ends() -> None:
    points = [(float(i), float(i % 7)) for i in range(5000)]
    assert len(thinned(points)) == 600 and thinned(points)[-1] == points[-1]
    assert [y for _, y in smoothed([(float(i), 3.0) for i in range(50)])] == pytest.approx([3.0] * 50)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.93, 3.52), (2e-5, 2e-3), (5.0, 5.0), (0.0, 0.0), (-3.0, 12345.0)])
def test_ticks_cover_the_range_with_few_round_numbers(low: float, high: float) -> None:
    ticks = nice_ticks(low, high, 5)
    assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 8


def test_warnings_name_settings_in_words_and_their_paths_only_beside_them(tmp_path: Path) -> None:
    generation = {"examples": [{}] * 10, "num_cut": {"base": 0, "tuned": 9}, "num_loops": {"base": 0, "tuned": 9}, "max_new_tokens": 8}
    run_dir = RunDir(tmp_path)
    forgotten = {"label": "forgotten", "relative": 0.5, "ci": [0.4, 0.6]}
    less_likely = {"chosen_likelihood": {"label": "regressed", "base": 1.0, "tuned": 2.0}}

    told = []
    for more in ({}, {"scores": []}):
        heldout = {"num_examples": 3, "dropped": [], "generation": generation} | more
        told += caveats.find(run_dir, heldout=heldout, retention=forgotten, memorised=None, metrics=less_likely, keep_best=False)

    path = re.compile(r"\b(?:data|evaluation|objective|optim|training|method)\.\w+(?:\.\w+)*")
    named = [(told[i]["code"], language, found) for i in range(len(told)) for language in ("en", "zh") for found in path.finditer(told[i][language])]
    assert {found.group() for _, _, found in named} >= {"data.split.test", "evaluation.max_new_tokens", "objective.max_completion_tokens", "objective.beta"}
    assert [one for one in named if one[2].string[one[2].start() - 1] not in "(\uff08"] == []
