"""The real data sets: each is told right and every row of it accounted for."""

import gzip
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from danlu.data.prepare import examples
from danlu.errors import DataError, FormatError

FILES: dict[str, tuple[str, str, tuple[int, int, int]]] = {
    # file: (format, objective, (rows in, dropped, exact duplicates))
    "sft/gpteacher/codegen-instruct.json": ("alpaca", "sft", (4535, 0, 0)),
    "sft/gpteacher/roleplay-instruct.json": ("alpaca", "sft", (1923, 0, 0)),
    "sft/self-instruct/seed_tasks.jsonl": ("alpaca", "sft", (175, 0, 0)),
    "sft/customer-service/banking77_test.csv": ("prompt_completion", "sft", (3080, 0, 1)),
    "sft/customer-service/banking77_train.csv": ("prompt_completion", "sft", (10003, 0, 4)),
    "sft/medical/tigerbot_medical_qa_6000_zh.jsonl": ("alpaca", "sft", (6000, 0, 29)),
    "sft/medical/medicalgpt_medical_sft_1K_zh.jsonl": ("sharegpt", "sft", (1000, 0, 0)),
    "sft/medical/CMtMedQA_test_multiturn_zh.json": ("alpaca", "sft", (1144, 0, 5)),
    "sft/llamafactory/glaive_toolcall_en_demo.json": ("sharegpt", "sft", (300, 0, 38)),
    "sft/llamafactory/wiki_demo.txt": ("text", "pretrain", (30, 0, 0)),
    "sft/llamafactory/kto_en_demo.json": ("labelled", "sft", (300, 150, 0)),
    "sft/llamafactory/identity.json": ("alpaca", "sft", (91, 0, 0)),
    "sft/llamafactory/dpo_zh_demo.json": ("preference", "sft", (300, 0, 11)),
    "sft/llamafactory/dpo_en_demo.json": ("preference", "sft", (300, 0, 5)),
    "sft/llamafactory/v1_sft_demo.jsonl": ("messages", "sft", (500, 0, 1)),
    "pref/hh-rlhf_harmless-base_test.jsonl.gz": ("preference", "sft", (2312, 4, 0)),
    "pref/dpo_zh_500.jsonl": ("preference", "sft", (500, 0, 0)),
    "eval/gsm8k/test.jsonl": ("prompt_completion", "sft", (1319, 0, 0)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_real_file_is_told_and_accounted_for(name: str, shared_data: Path, prepared: Any) -> None:
    format, objective, (rows_in, dropped, duplicate) = FILES[name]

    done = prepared(shared_data / name, objective=objective)

    account = done.accounting
    assert (account.format, account.rows_in, account.dropped, account.duplicate) == (format, rows_in, dropped, duplicate)
    assert account.used == rows_in - dropped - duplicate == len(done.examples)
    assert abs(account.splits["test"] - 0.1 * account.used) <= 0.5 + 0.01 * account.used


@pytest.mark.parametrize("name", ["en_sgd_dialogues", "en_standardebooks", "zh_docs_ccby", "zh_docs_ccbysa", "zh_poetry"])
def test_the_head_of_each_corpus_is_plain_text(name: str, shared_data: Path, prepared: Any) -> None:
    with gzip.open(shared_data / "corpus" / f"{name}.jsonl.gz") as file:
        head = b"".join(islice(file, 200))

    account = prepared(gzip.compress(head, mtime=0), name="head.jsonl.gz", objective="pretrain").accounting

    assert (account.format, account.rows_in, account.dropped) == ("text", 200, 0)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("sft/llamafactory/dataset_info.json", FormatError, "cannot tell the dataset format"),
        ("sft/travel/crosswoz_attraction_db_zh.json", DataError, "no row of the file can be read"),
        ("sft/travel/crosswoz_val_zh.json.zip", FormatError, "zip archive"),
        ("sft/chat/chatterbot_chinese/ai.yml", FormatError, "YAML"),
        ("models/stories260K/model.safetensors", FormatError, "binary file"),
        ("sft/medical", DataError, "is a folder"),
        ("eval/truthfulqa/TruthfulQA.csv", FormatError, "prompt: Question, completion: Best Answer"),
    ],
)
def test_what_is_no_dataset_is_refused_with_its_reason(name: str, error: type[DataError], says: str, shared_data: Path) -> None:
    with pytest.raises(error, match=says):
        next(examples(shared_data / name))


def test_template_wrappers_of_a_real_file_are_gone(shared_data: Path, prepared: Any) -> None:
    done = prepared(shared_data / "sft/medical/tigerbot_medical_qa_6000_zh.jsonl")

    assert done.accounting.fixed == done.accounting.used
    assert not any("###" in m["content"][:20] for e in done.examples for m in e["messages"])


def test_tool_calls_of_a_real_file_are_kept(shared_data: Path) -> None:
    found = list(examples(shared_data / "sft/llamafactory/glaive_toolcall_en_demo.json"))

    calls = [m["tool_calls"][0]["function"] for e in found for m in e["messages"] if "tool_calls" in m]
    assert len(found) == 300 and len(calls) > 200
    assert all(isinstance(call["arguments"], dict) and call["name"] for call in calls)
    assert all(tool["type"] == "function" for e in found for tool in e.get("tools", ()))


def test_a_dialogue_of_a_real_preference_file_parts_at_its_last_answer(shared_data: Path) -> None:
    for example in examples(shared_data / "pref/hh-rlhf_harmless-base_test.jsonl.gz", needs="preference"):
        assert example["messages"][-1]["role"] == "user"
        assert [m["role"] for m in example["chosen"]][-1] == "assistant" == [m["role"] for m in example["rejected"]][-1]
        assert example["chosen"] != example["rejected"]
