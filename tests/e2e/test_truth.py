"""The report of a run on real data is true: every number again with plain Transformers and PEFT, one example at a time."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from danlu.bundled import FOLDER
from danlu.files import read_json, read_jsonl
from danlu.recipe.load import load_recipe
from danlu.services.runs import run

FEW = {
    "method": {"type": "lora", "rank": 8},
    "optim": {"max_steps": 30, "global_batch_size": 4, "learning_rate": 0.003},
    "training": {"validate_every_steps": 15},
    "evaluation": {"suites": ["heldout"], "max_generations": 4, "max_new_tokens": 24},
}
pytestmark = [pytest.mark.slow, pytest.mark.shared, pytest.mark.timeout(400)]


class Truth:
    """A finished run, and what is needed to compute its numbers again without Danlu."""

    def __init__(self, folder: Path, source: list[dict[str, Any]], base: Path) -> None:
        self.folder, self.source = folder, source
        self.report = read_json(folder / "report.json")
        self.test = list(read_jsonl(folder / "data/test.jsonl"))
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "adapter")
        self.model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder / "adapter").eval()

    def labelled(self, messages: list[dict[str, str]]) -> tuple[list[int], list[int]]:
        """Token ids, and labels: -100 up to the answer and for the line break that the template puts after the end of turn."""
        prompt = self.tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        assert text.startswith(prompt)
        end = text.rindex(self.tokenizer.eos_token) + len(self.tokenizer.eos_token)
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        labels = [i if len(prompt) <= start < end else -100 for i, (start, _) in zip(found["input_ids"], found["offset_mapping"], strict=True)]
        return found["input_ids"], labels

    @torch.no_grad()
    def nats(self, messages: list[dict[str, str]]) -> tuple[float, int]:
        ids, labels = self.labelled(messages)
        logits = self.model(input_ids=torch.tensor([ids])).logits[0, :-1]
        nats = F.cross_entropy(logits, torch.tensor(labels[1:]), ignore_index=-100, reduction="sum")
        return float(nats), sum(label != -100 for label in labels[1:])

    @torch.no_grad()
    def answer(self, messages: list[dict[str, str]], max_new_tokens: int) -> str:
        ids = self.tokenizer(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True), add_special_tokens=False)["input_ids"]
        new: list[int] = []
        while len(new) < max_new_tokens and self.tokenizer.eos_token_id not in new:
            new.append(int(self.model(input_ids=torch.tensor([[*ids, *new]])).logits[0, -1].argmax()))
        return str(self.tokenizer.decode(new, skip_special_tokens=True)).strip()

    def both(self) -> Iterator[str]:
        """Once with the adapter off, once with it on."""
        with self.model.disable_adapter():
            yield "base"
        yield "tuned"


@pytest.fixture(scope="module", params=["medical", "identity"])
def truth(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Truth:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "medical":
        lines = (shared_data / "sft/medical/tigerbot_medical_qa_6000_zh.jsonl").read_bytes().splitlines()[:1000]
        dataset, source = folder / "medical.jsonl", [orjson.loads(line) for line in lines]
        dataset.write_bytes(b"\n".join(lines))
        name, base = "danlu/tiny", FOLDER / "tiny"
    else:
        dataset, base = shared_data / "sft/llamafactory/identity.json", shared_data / "models/stories260K"
        name, source = str(base), orjson.loads(dataset.read_bytes())
    run(load_recipe(values=FEW | {"base_model": name, "dataset": str(dataset), "data": {"max_seq_len": 512}}), run_dir=folder / "run")
    return Truth(folder / "run", source, base)


def test_the_losses_of_base_and_tuned_are_those_of_plain_transformers(truth: Truth) -> None:
    metrics, examples = truth.report["metrics"], [example["messages"] for example in truth.test]
    found = {name: [truth.nats(messages) for messages in examples] for name in truth.both()}
    num_tokens = sum(count for _, count in found["base"])
    num_bytes = sum(len(messages[-1]["content"].encode()) for messages in examples)
    totals = {name: sum(nats for nats, _ in values) for name, values in found.items()}

    assert truth.report["heldout"]["num_examples"] == len(examples) >= 9
    assert truth.report["heldout"]["num_truncated"] == truth.report["heldout"]["num_dropped"] == 0
    assert truth.report["heldout"]["num_label_tokens"] == num_tokens
    for name, total in totals.items():
        assert metrics["nll_per_token"][name] == pytest.approx(total / num_tokens, rel=1e-4)
        assert metrics["nll_per_byte"][name] == pytest.approx(total / num_bytes, rel=1e-4)
        assert metrics["perplexity"][name] == pytest.approx(math.exp(total / num_tokens), rel=1e-3)
    delta = (totals["tuned"] - totals["base"]) / num_tokens
    assert metrics["nll_per_token"]["delta"] == pytest.approx(delta, rel=1e-3)
    gains = [(before - after) / count for (before, count), (after, _) in zip(found["base"], found["tuned"], strict=True)]
    record = [sum(gain > 1e-4 for gain in gains), sum(abs(gain) <= 1e-4 for gain in gains), sum(gain < -1e-4 for gain in gains)]
    assert [metrics["nll_per_token"][key] for key in ("wins", "ties", "losses")] == record
    verdict = truth.report["verdict"]
    low, high = verdict["ci"]
    assert low <= delta <= high and verdict["delta"] == metrics["nll_per_token"]["delta"]
    assert verdict["label"] == ("improved" if high < 0 and verdict["p"] < 0.05 else "no_difference" if low <= 0 else "regressed")


def test_the_answers_are_those_of_greedy_decoding_one_by_one(truth: Truth) -> None:
    rows = list(read_jsonl(truth.folder / "evaluation/generations.jsonl"))
    by_line = {example["line"]: example["messages"] for example in truth.test}

    assert len(rows) == 8 == 2 * truth.report["heldout"]["num_generated"]
    for name in truth.both():
        for row in (row for row in rows if row["model"] == name):
            messages = by_line[row["line"]]
            assert row["reference"] == messages[-1]["content"]
            assert row["prediction"] == truth.answer(messages[:-1], 24)


def test_every_row_of_the_file_is_in_one_place(truth: Truth) -> None:
    rows = truth.report["rows"]
    kept = {example["line"]: (split, example) for split in ("train", "validation", "test") for example in read_jsonl(truth.folder / f"data/{split}.jsonl")}
    out = {entry["line"]: entry for entry in read_jsonl(truth.folder / "data/dropped.jsonl") if entry["action"] != "fixed"}
    where = {action: [entry for entry in out.values() if entry["action"] == action] for action in ("dropped", "duplicate", "near_duplicate")}

    assert rows["rows_in"] == len(truth.source) == rows["used"] + rows["dropped"] + rows["duplicate"] + rows["near_duplicate"]
    assert len(kept) + len(out) == len({*kept, *out}) == len(truth.source)
    assert {action: len(entries) for action, entries in where.items()} == {action: rows[action] for action in where}
    assert rows["used"] == len(kept) and rows["splits"] == {split: sum(s == split for s, _ in kept.values()) for split in ("train", "validation", "test")}
    numbers = {line: number for number, line in enumerate(sorted([*kept, *out]))}
    for line, (_, example) in kept.items():
        said = truth.source[numbers[line]]
        assert letters(example["messages"][-1]["content"]) in letters(said["output"])
        assert letters(example["messages"][-2]["content"]) in letters(f"{said['instruction']}\n{said['input'] or ''}")
    for entry in where["duplicate"]:
        one, other = (truth.source[numbers[line]] for line in (entry["line"], entry["duplicate_of"]))
        assert letters(one["output"]) == letters(other["output"]) and letters(one["instruction"]) == letters(other["instruction"])


def letters(text: str) -> str:
    """What is left of a text without space: cleaning changes no other character."""
    return "".join(text.split())


def test_the_adapter_is_small_and_stands_alone(truth: Truth) -> None:
    config = read_json(truth.folder / "adapter/adapter_config.json")

    assert config["peft_type"] == "LORA" and config["r"] == 8
    assert truth.tokenizer.chat_template
    assert sum(path.stat().st_size for path in (truth.folder / "adapter").glob("*.safetensors")) < 3e6
