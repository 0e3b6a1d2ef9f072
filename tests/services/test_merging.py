"""Adapters over one base model: stacked, merged by a formula that is checked, and proved like any run."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from danlu.errors import ModelError, NoEffectError
from danlu.files import read_json, read_jsonl
from danlu.recipe.load import load_recipe
from danlu.services.chat import ChatOptions, ChatSession
from danlu.services.exports import export
from danlu.services.merging import merge
from danlu.services.runs import open_run, run
from models import recipe_values, write_model


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, small_model: Path, rows_file: Path) -> tuple[Path, Path]:
    """Two finished runs of different ranks on different rows, one of which both have."""
    root = tmp_path_factory.mktemp("two")
    rows = [{"instruction": f"How high is tower {n}?", "output": f"Tower {n} is {n * 7} metres high."} for n in range(40)]
    rows.append({"instruction": "Which colour has door 3?", "output": "Door 3 is red."})
    (root / "towers.jsonl").write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    few: dict[str, Any] = {"evaluation": {"suites": ["heldout"], "metrics": []}, "optim": {"max_steps": 12, "global_batch_size": 4, "learning_rate": 0.01}}
    run(load_recipe(values=recipe_values(small_model, rows_file, **few)), run_dir=root / "doors")
    method = {"type": "lora", "rank": 3, "alpha": 5, "use_rslora": True}
    run(load_recipe(values=recipe_values(small_model, root / "towers.jsonl", **few | {"method": method})), run_dir=root / "towers")
    return root / "doors", root / "towers"


def logits(base_dir: Path, adapter: Path | None) -> torch.Tensor:
    """By stock Transformers and PEFT alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base_dir)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(10, 40)[None]).logits


def weight_changes(adapter: Path) -> dict[str, torch.Tensor]:
    """scale B A of each layer, from the files alone."""
    from safetensors.torch import load_file

    config, tensors = read_json(adapter / "adapter_config.json"), load_file(adapter / "adapter_model.safetensors")
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
    names = {name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")}
    return {name: scale * tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"] for name in names}


@pytest.mark.parametrize(("how", "rank"), [("linear", 7), ("svd", 7), ("ties", 4), ("dare_ties", 4), ("dare_linear", 4)])
def test_a_merge_follows_its_formula_and_loads_anywhere(tmp_path: Path, runs: tuple[Path, Path], small_model: Path, how: str, rank: int) -> None:
    result = merge([str(one) for one in runs], tmp_path / how, how=how, weights=[0.7, -0.3], rank=rank if how == "svd" else None)

    assert result.outcome == "finished" and result.report is not None and result.report["verdict"]["num_examples"] >= 8
    assert read_json(tmp_path / how / "training.json")["rank"] == rank
    assert read_json(tmp_path / how / "verification.json")["passed"]
    found = weight_changes(tmp_path / how / "adapter")
    doors, towers = (weight_changes(one / "adapter") for one in runs)
    assert found.keys() == doors.keys() == towers.keys()
    expected = {name: 0.7 * doors[name] - 0.3 * towers[name] for name in doors}
    error = max(float((found[name] - expected[name]).norm() / expected[name].norm()) for name in expected)
    if how in ("linear", "svd"):  # rank 7 holds all of ranks 4 and 3
        assert error < 1e-4
    else:
        assert error > 1e-3
    assert torch.isfinite(logits(small_model, tmp_path / how / "adapter")).all()
    assert not torch.allclose(logits(small_model, tmp_path / how / "adapter"), logits(small_model, None), atol=1e-3)


def test_a_merged_run_is_proved_on_rows_that_none_was_trained_on_and_can_be_exported(tmp_path: Path, runs: tuple[Path, Path]) -> None:
    merge([str(one) for one in runs], tmp_path / "merged")
    record = read_json(tmp_path / "merged/run.json")
    assert record["state"] == "finished" and record["merge"]["weights"] == [0.5, 0.5]
    contents = {
        split: {orjson.dumps(row["messages"]) for row in read_jsonl(tmp_path / f"merged/data/{split}.jsonl")} for split in ("train", "validation", "test")
    }
    for one in runs:
        assert not contents["test"] & {orjson.dumps(row["messages"]) for row in read_jsonl(one / "data/train.jsonl")}
    assert len(contents["test"]) >= 8
    answer = "".join(ChatSession(str(tmp_path / "merged")).ask("How high is tower 3?", ChatOptions(temperature=0, max_new_tokens=4)))
    assert isinstance(answer, str)
    assert (export(open_run(str(tmp_path / "merged")), "merged") / "model.safetensors").exists()


def test_stacked_adapters_are_the_sum_of_their_changes(tmp_path: Path, runs: tuple[Path, Path]) -> None:
    merge([str(one) for one in runs], tmp_path / "sum", weights=[1.0, 1.0])
    ids = torch.arange(10, 40)[None]

    together, merged = ChatSession(str(runs[0]), stacked=[str(runs[1])]), ChatSession(str(tmp_path / "sum"))
    with torch.no_grad(), together.pair.tuned() as one, merged.pair.tuned() as other:
        torch.testing.assert_close(one(input_ids=ids).logits, other(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    with torch.no_grad(), together.pair.base() as one, merged.pair.base() as other:
        torch.testing.assert_close(one(input_ids=ids).logits, other(input_ids=ids).logits)


def test_what_cannot_be_merged_is_refused(tmp_path: Path, runs: tuple[Path, Path], rows_file: Path, small_model: Path) -> None:
    doors, towers = (str(one) for one in runs)
    few: dict[str, Any] = {"evaluation": {"suites": []}, "optim": {"max_steps": 1, "global_batch_size": 4, "learning_rate": 0.01}}
    for name, values in {
        "other": {"base_model": str(write_model(tmp_path / "other-base", seed=7))},
        "dora": {"method": {"type": "lora", "use_dora": True}},
    }.items():
        run(load_recipe(values=recipe_values(small_model, rows_file, **few) | values), run_dir=tmp_path / name)

    def refused(error: type[Exception], match: str, *names: str, **options: Any) -> None:
        with pytest.raises(error, match=match):
            merge(names, tmp_path / "out", **options)
        assert not (tmp_path / "out/run.json").exists()

    refused(ModelError, "different base models", doors, str(tmp_path / "other"))
    refused(NoEffectError, "at least two different runs", doors, doors)
    refused(NoEffectError, "2 weights were given for 3 runs|3 weights were given for 2 runs", doors, towers, weights=[1, 2, 3])
    refused(NoEffectError, "--how mean is not known", doors, towers, how="mean")
    refused(NoEffectError, "--rank has no effect", doors, towers, rank=4)
    refused(NoEffectError, "cannot be combined with others", doors, str(tmp_path / "dora"))
    with pytest.raises(ModelError, match="different base models"):
        ChatSession(doors, stacked=[str(tmp_path / "other")])
