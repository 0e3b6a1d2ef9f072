"""The command line as a person and as a script use it."""

import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import torch
import typer
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from danlu.cli.main import app, main
from danlu.files import read_json, read_jsonl
from models import write_model

IDS = torch.tensor([[5, 300, 41, 7, 2999, 12, 6, 801]])


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Danlu = Callable[..., Done]


@pytest.fixture
def danlu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Danlu:
    """Run the command line in this process."""
    monkeypatch.setenv("DANLU_LANG", "en")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")

    def command(*words: object, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["danlu", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return Done(code, captured.out, captured.err)

    return command


@pytest.fixture
def copied(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that may be changed."""
    return Path(shutil.copytree(finished_run, tmp_path / "runs/doors", symlinks=True))


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits  # type: ignore[no-any-return]


def test_run_json_prints_the_report_and_nothing_else(danlu: Danlu, small_model: Path, rows_file: Path, tmp_path: Path) -> None:
    words = ["--data", rows_file, "-m", small_model, "--method.rank", "4", "optim.max_steps=4", "--optim.global_batch_size=4", "optim.learning_rate=1e-2"]
    words += ["evaluation.max_generations=2", "--evaluation.max_new_tokens", "4", "--export=[adapter]", "--run-dir", tmp_path / "run"]

    done = danlu("run", *words, "--json")

    assert done.code == 0, done.err
    report = done.json
    assert report == read_json(tmp_path / "run/report.json")
    assert report["verdict"]["label"] in ("improved", "no_difference", "regressed")
    assert report["metrics"].keys() == {"nll_per_token", "perplexity", "nll_per_byte", "exact_match", "rouge_l", "bleu", "chrf"}
    for metric in report["metrics"].values():
        assert {"base", "tuned", "delta", "ci", "p"} <= metric.keys() and len(metric["ci"]) == 2
    assert {"label", "base", "tuned", "delta", "ci"} <= report["retention"].keys()
    assert {key: report["rows"][key] for key in ("rows_in", "used", "dropped", "duplicate")} == {"rows_in": 62, "used": 60, "dropped": 1, "duplicate": 1}
    assert {"data_seconds", "training_seconds", "evaluation_seconds", "export_adapter_seconds", "wall_seconds"} <= report["timing"].keys()
    assert report["memory"]["training_peak_bytes"] > 1 << 20 and report["forecast"]["peak_memory_bytes"] > 1 << 20
    assert report["recipe"]["method"]["rank"] == 4 and report["recipe"]["optim"]["max_steps"] == 4
    assert "Training" in done.err and (tmp_path / "run/exports/adapter/README.md").is_file()
    assert danlu("run", *words, "--json").json["metrics"] == report["metrics"]


def test_run_for_a_person_ends_with_the_verdict_and_the_way_to_the_report(danlu: Danlu, finished_run: Path) -> None:
    done = danlu("report", finished_run)

    assert done.code == 0
    report = read_json(finished_run / "report.json")
    assert report["verdict"]["text"]["en"] in " ".join(done.out.split())
    assert re.search(r"(?i)per token +\d+\.\d{3} +\d+\.\d{3} +[+-]\d+\.\d{3} \[", done.out)
    assert "Rows: 62 in the file, 60 used, 1 dropped" in done.out
    assert str(finished_run / "report.html") in done.out.replace("\n", "")


def test_report_and_runs_are_readable_by_programs(danlu: Danlu, copied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DANLU_HOME", str(tmp_path))
    before = read_json(copied / "report.json")

    assert danlu("report", "last", "--json").json == before
    [row] = danlu("runs", "--json").json
    assert {key: row[key] for key in ("id", "state", "verdict")} == {"id": "doors", "state": "finished", "verdict": before["verdict"]["label"]}
    assert re.search(rf"doors +finished .*{before['verdict']['label']}", danlu("runs").out)


def test_the_coach_speaks_to_a_person_and_to_a_program(danlu: Danlu, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = danlu("coach", copied, "--json").json
    said = danlu("coach", copied).out
    monkeypatch.setenv("DANLU_LANG", "zh")
    assert [d["name"] for d in found] == ["data_too_small", "validation_too_small"]
    assert "! Coach [data_too_small]: 48 examples to train on." in said and "next time: data.split.validation=0.3" in said
    assert "教练 [validation_too_small]：" in danlu("coach", copied).out.replace("]: ", "]：")
    assert read_json(copied / "report.json")["coach"] == found

    for name in ("events", "metrics"):
        (copied / f"{name}.jsonl").unlink()
    (copied / "data/encoded.json").unlink()
    assert "教练没有发现问题" in danlu("coach", copied).out


def test_an_export_keeps_the_coach_in_the_report(danlu: Danlu, copied: Path, tmp_path: Path) -> None:
    done = danlu("export", copied, "--to", "adapter", "--out", tmp_path / "out", "--json")
    facts = {"run_id": "doors", "format": "adapter", "folder": str(tmp_path / "out"), "verification": read_json(tmp_path / "out/verification.json")}
    assert (done.code, done.json) == (0, facts)
    assert [d["name"] for d in read_json(copied / "report.json")["coach"]] == ["data_too_small", "validation_too_small"]
    assert "`data_too_small`: 48 examples to train on." in (tmp_path / "out/README.md").read_text("utf-8")


def test_no_runs_yet(danlu: Danlu) -> None:
    assert "danlu demo" in danlu("runs").out
    assert danlu("runs", "--json").json == []


def test_a_merged_export_is_what_was_trained(danlu: Danlu, copied: Path, small_model: Path, tmp_path: Path) -> None:
    done = danlu("export", copied, "--to", "merged", "--out", tmp_path / "merged")

    assert done.code == 0, done.err
    proof = read_json(tmp_path / "merged/verification.json")
    assert (
        proof["passed"] is True and proof["num_prompts"] >= 6 and proof["num_different_tokens"] == 0 and 0 <= proof["max_difference"] <= proof["bound"] == 1e-3
    )
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(small_model, dtype=torch.float32), copied / "adapter")
    expected, found = logits(peft), logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
    assert float((expected - found).abs().max()) <= 1e-3 * float(expected.abs().max())
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template == AutoTokenizer.from_pretrained(small_model).chat_template
    assert {path.suffix for path in (tmp_path / "merged").iterdir()} <= {".json", ".safetensors", ".md", ".jinja"}


def test_an_adapter_export_names_its_base_and_states_facts(danlu: Danlu, copied: Path, small_model: Path) -> None:
    done = danlu("export", copied, "--to", "adapter")

    folder = copied / "exports/adapter"
    assert done.code == 0 and str(folder) in done.out.replace("\n", "")
    assert read_json(folder / "adapter_config.json")["base_model_name_or_path"] == str(small_model)
    report, card = read_json(copied / "report.json"), (folder / "README.md").read_text("utf-8")
    for fact in (
        report["verdict"]["text"]["en"],
        report["fingerprint"],
        "rows_in: 62",
        "used: 60",
        "duplicate: 1",
        "license: unknown",
        "library_name: peft",
        "rank: 4",
    ):
        assert fact in card, fact
    assert f"| {report['metrics']['nll_per_token']['base']:.4g} | {report['metrics']['nll_per_token']['tuned']:.4g} |" in card


def tampered(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., None]:
    """An exporter that writes something else than it was given."""
    from danlu.export.formats.merged import MergedExport

    write = MergedExport.export

    def export(self: MergedExport, source: Any, folder: Path) -> None:
        write(self, source, folder)
        tensors = load_file(folder / "model.safetensors")
        name = "model.layers.1.mlp.down_proj.weight"
        save_file(tensors | {name: change(tensors[name])}, folder / "model.safetensors", metadata={"format": "pt"})

    return export


@pytest.mark.parametrize(
    "change", [lambda weight: weight * 1.5, lambda weight: weight.clone().fill_(float("nan")), lambda weight: weight.flip(0)], ids=["scaled", "nan", "mixed up"]
)
def test_an_export_that_differs_is_refused_and_the_older_one_stays(danlu: Danlu, copied: Path, monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    assert danlu("export", copied, "--to", "merged").code == 0
    before = (copied / "exports/merged/model.safetensors").read_bytes()
    monkeypatch.setattr("danlu.export.formats.merged.MergedExport.export", tampered(change))

    done = danlu("export", copied, "--to", "merged")

    assert done.code == 6 and "DL601" in done.err and "largest logit difference" in done.err
    assert (copied / "exports/merged/model.safetensors").read_bytes() == before
    assert [path.name for path in (copied / "exports").iterdir()] == ["merged"]


def test_an_export_from_another_base_model_is_refused(danlu: Danlu, copied: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", seed=4)
    record = read_json(copied / "run.json")
    record["base_model"]["folder"] = str(other)
    (copied / "run.json").write_text(json.dumps(record))

    for words in (("export", copied, "--to", "merged"), ("chat", copied, "--message", "hi")):
        done = danlu(*words)
        assert done.code == 4 and "is not the one this run was made from" in done.err


def test_an_export_overwrites_nothing_it_did_not_write(danlu: Danlu, copied: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")

    for out in (tmp_path / "mine", tmp_path / "mine/thesis.txt"):
        assert danlu("export", copied, "--to", "merged", "--out", out).code == 6
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_chat_answers_the_same_again_and_the_base_answers_otherwise(danlu: Danlu, finished_run: Path, small_model: Path) -> None:
    def ask(*words: object) -> str:
        done = danlu("chat", finished_run, "--message", "Which colour has door 4?", "--max-tokens", 12, *words)
        assert done.code == 0, done.err
        return done.out

    tuned, base = ask("--temperature", 0), ask("--temperature", 0, "--base")
    assert tuned == ask("--temperature", 0, "--seed", 5) != base
    drawn = [ask("--temperature", 2, "--top-p", 1, "--seed", seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert danlu("chat", small_model, "--message", "Which colour has door 4?", "--max-tokens", 12, "--temperature", 0).out == base
    assert json.loads(ask("--temperature", 0, "--json")) == {"model": "tuned", "message": "Which colour has door 4?", "answer": tuned.removesuffix("\n")}


def test_chat_understands_its_commands_and_goes_on_after_a_mistake(danlu: Danlu, finished_run: Path) -> None:
    lines = [
        "/temperature 0",
        "/max 4",
        "hi",
        "/base",
        "hi",
        "/tuned",
        "/reset",
        "hi",
        "/temperature hot",
        "/top_p 3",
        "/what",
        "long " * 600,
        "hi",
        "/quit",
        "hi",
    ]

    done = danlu("chat", finished_run, stdin="\n".join(lines) + "\n")

    assert done.code == 0
    assert "temperature = 0.0" in done.out and "max = 4" in done.out and "conversation cleared" in done.out
    assert "temperature takes a number from 0.0 to 5.0" in done.out and "top_p takes a number from 0.01 to 1.0" in done.out
    assert done.out.count("/base and /tuned switch the model") == 2
    assert done.out.count("tuned> ") == 12 and done.out.count("base> ") == 2
    answers = re.findall(r"tuned> (?!temperature|max|/|conversation|top_p|tuned|base)([^\n]*)\n", done.out)
    assert answers[0] and answers[0] == answers[1]
    assert "leaves no room for an answer" in done.err


def test_chat_ends_with_its_input_and_a_base_model_has_no_tuned_one(danlu: Danlu, small_model: Path) -> None:
    done = danlu("chat", small_model, "--max-tokens", 3, stdin="/tuned\nhi\n")

    assert done.code == 0
    assert "there is no tuned one" in done.out and "tuned> " not in done.out and done.out.count("base> ") == 3


def test_chat_forgets_the_oldest_turns_when_the_model_can_read_no_more(danlu: Danlu, finished_run: Path) -> None:
    done = danlu(
        "chat", finished_run, "--max-tokens", 8, stdin="What is a door and what is it for? " * 6 + "\n" + ("tell me more about doors " * 12 + "\n") * 6
    )

    assert (done.code, done.err) == (0, "")


def test_an_answer_ends_where_the_template_ends_a_turn(small_model: Path) -> None:
    from danlu.models.load import load_model, load_tokenizer
    from danlu.models.stream import stream_answer

    model, tokenizer, prompt = load_model(small_model).eval(), load_tokenizer(small_model), [5, 300, 41, 7]

    def answer(stop_ids: list[int]) -> list[int]:
        pieces = stream_answer(model, tokenizer, prompt, temperature=0, top_p=1.0, max_new_tokens=6, stop_ids=stop_ids)
        return list(tokenizer("".join(pieces), add_special_tokens=False)["input_ids"])

    whole = model.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False, eos_token_id=2, pad_token_id=0)[0, 4:].tolist()
    assert tokenizer.decode(answer([2])) == tokenizer.decode(whole)
    assert len(answer([int(whole[2])])) <= len(whole) - 2


def test_data_show_marks_exactly_what_is_trained(danlu: Danlu, rows_file: Path, small_model: Path) -> None:
    done = danlu("data", "show", rows_file, "-m", small_model, "-n", 2)
    tokenizer = AutoTokenizer.from_pretrained(small_model)

    assert done.code == 0
    assert re.findall(r"⟦(.*?)⟧", done.out, re.DOTALL) == ["Door 0 is red.<|im_end|>", "Door 1 is green.<|im_end|>"]
    shown = danlu("data", "show", rows_file, "-m", small_model, "-n", 2, "--json").json
    assert [row["line"] for row in shown] == [1, 2]
    for number, row in enumerate(shown):
        trained = [i for i, is_trained in zip(row["ids"], row["loss_mask"], strict=True) if is_trained]
        assert tokenizer.decode(trained) == f"Door {number} is {('red', 'green')[number]}.<|im_end|>"
        assert len(row["tokens"]) == len(row["ids"]) == len(row["loss_mask"])


def test_data_inspect_is_readable_by_programs(danlu: Danlu, rows_file: Path) -> None:
    found = danlu("data", "inspect", rows_file, "--json").json

    assert found["rows_in"] == 62 and found["format"] == "alpaca"
    assert "62" in danlu("data", "inspect", rows_file).out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "--data", "none.jsonl"], 3, "DL200: there is no data file 'none.jsonl'"),
        (["run", "--data", "none.jsonl", "--json"], 3, "DL200"),
        (["run", "none.yaml"], 2, "there is no recipe none.yaml"),
        (["run", "danlu/suport-en"], 2, "did you mean danlu/support-en?"),
        (["run", "rows.jsonl"], 2, "danlu run --data rows.jsonl"),
        (["run"], 2, "dataset: missing"),
        (["run", "--data", "rows.jsonl", "--optim.lerning_rate", "3"], 2, "did you mean 'learning_rate'?"),
        (["run", "--data", "rows.jsonl", "--optim.max_steps"], 2, "--optim.max_steps has no value"),
        (["run", "--data", "rows.jsonl", "--optim.max_steps", "--seed", "3"], 2, "--optim.max_steps has no value"),
        (["run", "--data", "rows.jsonl", "optim.max_steps="], 2, "is not an override"),
        (["run", "--data", "rows.jsonl", "--quite"], 2, "quite"),
        (["run", "--data", "rows.jsonl", "-m", "danlu/tini"], 2, "did you mean danlu/tiny?"),
        (["run", "--data", "rows.jsonl", "-m", "."], 4, "is not a model folder"),
        (["run", "--data", "."], 3, "folder"),
        (["run", "--data", "rows.jsonl", "--run-dir", "rows.jsonl"], 7, "cannot write"),
        (["run", "--data", "rows.jsonl", "data.system=" + "be kind " * 900, "seed=-1"], 2, "seed"),
        (["run", "--data", "a\x1b[31m.jsonl"], 3, "a\\x1b[31m.jsonl"),
        (["report"], 7, "DL701"),
        (["report", "x" * 5000], 7, "DL701"),
        (["resume", "nothing"], 7, "holds no runs"),
        (["chat", "nothing"], 7, "DL701"),
        (["chat", "nobody/nothing", "--message", "hi"], 4, "nobody/nothing"),
        (["export", "nothing", "--to", "merged"], 7, "DL701"),
        (["export", "nothing"], 2, "--to"),
        (["data", "inspect", "none.jsonl"], 3, "DL200"),
        (["data", "inspect", "."], 3, "folder"),
        (["data", "show", "none.jsonl"], 3, "DL200"),
        (["data", "show", "rows.jsonl", "--objective", "sfd"], 2, "use 'sft'"),
        (["chat", "nothing", "--json"], 2, "--json needs --message"),
        (["recipe", "check", "none.yaml"], 2, "there is no recipe none.yaml"),
        (["recipe", "check", "seed=-1"], 2, "seed"),
        (["nonsense"], 2, "No such command"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_mistake_is_told_on_stderr_with_its_exit_code(
    danlu: Danlu, rows_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(rows_file, "rows.jsonl")

    done = danlu(*words)

    assert (done.code, done.out) == (code, "")
    assert said in done.err
    if "DL" in done.err:
        assert re.match(r"error DL\d{3}: .*\n(.*\n)*  why: .*\n(.*\n)*  fix: .*\n  docs: docs/errors\.md#dl\d{3}\n", done.err[done.err.index("error DL") :])


def test_an_unknown_export_format_is_answered_with_those_there_are(danlu: Danlu, finished_run: Path) -> None:
    done = danlu("export", finished_run, "--to", "gguf")

    assert done.code == 2 and "installed: adapter, merged" in done.err


def test_a_defect_is_told_as_one_and_shown_whole_with_debug(finished_run: Path) -> None:
    code = "import danlu.services.runs as r, sys\ndef report(name): raise ZeroDivisionError('odd')\nr.report = report\nfrom danlu.cli.main import main\nmain()"
    for words, is_shown in (([], False), (["--debug"], True)):
        done = subprocess.run([sys.executable, "-c", code, *words, "report", finished_run], capture_output=True, text=True)
        assert ("Traceback" in done.stderr) is is_shown
        assert done.returncode == (1 if is_shown else 70)
        assert is_shown or "DL900" in done.stderr and "ZeroDivisionError: odd" in done.stderr


def test_a_person_is_spoken_to_in_chinese(danlu: Danlu, finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_LANG", "zh_CN.UTF-8")

    done = danlu("report", finished_run)
    assert read_json(finished_run / "report.json")["verdict"]["text"]["zh"][:20] in done.out
    assert "数据行：文件中 62 行" in done.out and "报告：" in done.out and "通用能力：" in done.out
    assert "还没有运行记录" in danlu("runs").out
    assert "/quit 退出" in danlu("chat", finished_run, stdin="/quit\n").out
    assert "个参与训练" in danlu("data", "show", "danlu/zhangjiajie", "-n", "1").out


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(group, click.Group) or hasattr(group, "commands"):
        for name, command in group.commands.items():
            yield from commands(command, (*words, name))


@pytest.mark.parametrize("words", list(commands(typer.main.get_command(app))), ids=" ".join)
def test_every_command_explains_itself(danlu: Danlu, words: tuple[str, ...]) -> None:
    done = danlu(*words, "--help")

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: danlu{''.join(' ' + word for word in words)}")
    options = re.findall(r"^  (?:-\w, )?--[\w-]+.*$", done.out, re.MULTILINE)
    assert options and all(re.search(r"\s{2,}\S", option.strip()) or len(option) > 25 for option in options)


def test_recipe_check_shows_every_setting_and_schema_is_json(danlu: Danlu) -> None:
    import yaml

    shown = danlu("recipe", "check", "danlu/zhangjiajie", "seed=3")
    assert yaml.safe_load(shown.out)["seed"] == 3
    assert danlu("recipe", "schema").json["properties"].keys() == yaml.safe_load(shown.out).keys()


@pytest.mark.slow
def test_a_run_that_is_told_to_stop_says_how_to_go_on_and_ends_the_same(danlu: Danlu, small_model: Path, rows_file: Path, tmp_path: Path) -> None:
    """SIGTERM to a real process in the middle of training; the uninterrupted run beside it is the measure."""
    words = ["--data", rows_file, "-m", small_model, "optim.max_steps=60", "optim.global_batch_size=4", "evaluation.suites=[]", "--json", "--run-dir"]
    assert danlu("run", *words, tmp_path / "whole").code == 0
    code = "from danlu.cli.main import main; main()"
    with subprocess.Popen([sys.executable, "-c", code, "run", *words, tmp_path / "parts"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        metrics = tmp_path / "parts/metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.read_bytes().count(b"\n") > 3):
            time.sleep(0.005)
        process.terminate()
        out, _ = process.communicate()

    assert process.returncode == 0 and json.loads(out) == {"run_id": "parts", "state": "paused"}
    assert read_json(tmp_path / "parts/run.json")["state"] == "paused"
    done = danlu("resume", tmp_path / "parts", "--json")
    assert done.code == 0 and done.json["state"] == "finished" and "going on after step" in done.err
    whole, parts = (tmp_path / name / "adapter/adapter_model.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


def test_the_lines_of_a_run_are_whole(finished_run: Path) -> None:
    metrics, events = list(read_jsonl(finished_run / "metrics.jsonl")), list(read_jsonl(finished_run / "events.jsonl"))

    assert [line["step"] for line in metrics if "loss" in line] == list(range(1, 9))
    assert [event["stage"] for event in events if event["kind"] == "stage"] == ["data", "training", "evaluation", "report"]
    assert not list(finished_run.rglob("*.tmp"))
