"""Every registered method with every registered objective: train, save, load, talk, merge where it can, resume.

A new method or objective is tested here the moment its file exists. An objective whose examples have a new shape
needs a line in `ROWS`; a method with an optional part worth testing, one in `VARIANTS`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from danlu.data.chat import ChatRenderer
from danlu.data.encode import encode_to_file
from danlu.errors import NoEffectError
from danlu.export.formats.adapter import AdapterExport
from danlu.export.formats.merged import MergedExport
from danlu.export.run import Source
from danlu.export.run import run as export
from danlu.files import read_jsonl
from danlu.models.generate import generate
from danlu.models.load import load_tokenizer
from danlu.models.pair import ModelPair
from danlu.models.quantise import compute_exactly
from danlu.recipe.base import METHODS, OBJECTIVES
from danlu.recipe.recipe import OptimConfig, Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir
from danlu.training import checkpoint
from danlu.training.run import base_model, run
from models import write_model

COLOURS = ("red", "green", "blue")
CHATS = [
    {"messages": [{"role": "user", "content": f"Door {n}?"}, {"role": "assistant", "content": f"It is {COLOURS[n % 3]}."}]} for n in range(10)
]  # fmt: skip
ROWS: dict[str, list[dict[str, Any]]] = {
    "messages": CHATS,
    "text": [{"text": f"Door {n} is {COLOURS[n % 3]}. Window {n} is open."} for n in range(10)],
    "prompt": [{"messages": chat["messages"][:1], "answer": chat["messages"][1]["content"], "columns": {}} for chat in CHATS],
    "labelled": [{"messages": chat["messages"][:1], "completion": chat["messages"][1:], "label": n % 2 == 0} for n, chat in enumerate(CHATS)],
    "preference": [
        {"messages": chat["messages"][:1], "chosen": chat["messages"][1:], "rejected": CHATS[(n + 1) % 10]["messages"][1:]} for n, chat in enumerate(CHATS)
    ],
}
OPTIONS: dict[str, dict[str, Any]] = {"grpo": {"num_answers": 4, "max_completion_tokens": 8, "rewards": [{"type": "length", "minimum": 40}], "beta": 0.01}}
"""Settings that make an objective small enough."""
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "freeze": [{"num_layers": 1}, {"num_layers": 1, "train_embeddings": True, "train_head": True}],
    "lora": [{}, {"use_dora": True, "use_rslora": True}, {"init": "pissa"}, {"layers": [-1], "rank_pattern": {"down_proj": 8}, "lora_plus_ratio": 4.0}],
    "lora_plus_full": [{}, {"modules_to_save": ["norm"]}],
    "p_tuning": [{}, {"encoder": "lstm"}],
    "p_tuning_v2": [{}, {"projection": True}],
    "qlora": [{}, {"bits": 8}],
}
SMALL: dict[str, Any] = {"rank": 4, "alpha": 8.0, "num_virtual_tokens": 4}
LEARNING_RATES = {"prompt_tuning": 0.3, "p_tuning": 0.03, "p_tuning_v2": 0.1, "ia3": 0.2}
NUM_STEPS = 4
NUM_TRAIN = 8
"""Every step sees all of them, so that the loss has no reason to rise."""


def cases(*, offered: bool) -> list[Any]:
    """Every pair that a recipe can name, or every one that it refuses."""
    found = []
    for method in METHODS:
        for objective in OBJECTIVES:
            for number, variant in enumerate(VARIANTS.get(method, [{}])):
                if number and objective != "sft":
                    continue  # variants of a method do not depend on the loss
                pair = pytest.param({"type": method, **variant}, objective, id="-".join([method, objective, *map(str, variant)]))
                if refusal({"type": method, **variant}, objective) is None:
                    found += [pair] * offered
                else:
                    found += [pair] * (not offered)
    return found


def refusal(method: dict[str, Any], objective: str) -> str | None:
    try:
        recipe_of(method, objective)
    except ValueError as error:
        return str(error)
    return None


def recipe_of(method: dict[str, Any], objective: str, optim: dict[str, Any] | None = None, *, dtype: str = "float32") -> Recipe:
    fields = METHODS[method["type"]].model_fields
    return Recipe.model_validate(
        {
            "base_model": "small",
            "dataset": "doors",
            "objective": {"type": objective, **OPTIONS.get(objective, {})},
            "method": {name: value for name, value in SMALL.items() if name in fields} | method,
            "data": {"format": "text", "max_seq_len": 64},
            "optim": {
                "learning_rate": LEARNING_RATES.get(method["type"], 0.01),
                "max_steps": NUM_STEPS,
                "global_batch_size": NUM_TRAIN,
                "micro_batch_tokens": 128,
                "scheduler": "constant",
                **(optim or {}),
            },
            "training": {"dtype": dtype, "validate_every_steps": 2, "checkpoint_every_steps": 2, "keep_best": False},
        }
    )


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "small", hidden_size=32, intermediate_size=64, num_attention_heads=2, num_key_value_heads=1)


@pytest.fixture(scope="module")
def renderer(base_dir: Path) -> ChatRenderer:
    return ChatRenderer(load_tokenizer(base_dir))


def prepare(folder: Path, recipe: Recipe, renderer: ChatRenderer) -> RunDir:
    """A run folder whose data stage is done."""
    run_dir = RunDir.create(folder)
    run_dir.data.mkdir(exist_ok=True)
    rows = ROWS[recipe.objective.needs]
    for split, part in (("train", rows[:NUM_TRAIN]), ("validation", rows[NUM_TRAIN:])):
        (run_dir.data / f"{split}.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in part))
        encode_to_file(
            part,
            run_dir.data / f"{split}.tokens",
            objective=recipe.objective,
            renderer=renderer,
            max_seq_len=64,
            truncation="drop",
            note=lambda entry: None,
            progress=lambda done: None,
        )
    return run_dir


class Killed(Exception):
    """Stands for a process that died."""


def die_after(step: int) -> Any:
    def listen(kind: str, fields: dict[str, Any]) -> None:
        if kind == "metrics" and fields.get("step") == step and "loss" in fields:
            raise Killed

    return listen


def stock_model(recipe: Recipe, base_dir: Path, run_dir: RunDir) -> Any:
    """The result as somebody loads it who has Transformers and PEFT only."""
    if not recipe.method.makes_adapter:
        return AutoModelForCausalLM.from_pretrained(run_dir.model, dtype=torch.float32)
    options: dict[str, Any] = {}
    if recipe.method.quantisation is not None:
        bits = recipe.method.quantisation.bits
        nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": torch.float32} if bits == 4 else {}
        options = {"quantization_config": BitsAndBytesConfig(**{f"load_in_{bits}bit": True}, **nf4), "device_map": {"": "cpu"}}
    model = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32, **options)
    compute_exactly(model)  # as it is, 4-bit layers compute in bfloat16 outside of training on processors that have it
    return PeftModel.from_pretrained(model, run_dir.adapter)


@torch.no_grad()
def logits(model: Any, ids: list[int]) -> torch.Tensor:
    return model.eval()(input_ids=torch.tensor([ids])).logits[0, -len(ids) :]  # type: ignore[no-any-return]


def check_answers(pair: ModelPair, renderer: ChatRenderer, ids: list[int]) -> None:
    """Both models answer, and a prompt's answer does not depend on the others of its batch."""
    for side in (pair.tuned, pair.base):
        with side() as model:
            together = [answer for batch in generate(model, renderer, [ids, ids[-5:]], max_new_tokens=4) for answer in sorted(batch.items())]
            alone = [answer for prompt in (ids, ids[-5:]) for batch in generate(model, renderer, [prompt], max_new_tokens=4) for answer in batch.values()]
        assert [answer for _, answer in together] == alone
        assert all(answer.num_tokens >= 1 for answer in alone)


def check_exports(recipe: Recipe, base_dir: Path, run_dir: RunDir, pair: ModelPair, ids: list[int], folder: Path) -> None:
    has_adapter = recipe.method.makes_adapter
    source = Source("small", base_dir, run_dir.adapter if has_adapter else None, None if has_adapter else run_dir.model, "float32", recipe.method)
    for exporter, is_possible in ((AdapterExport(), has_adapter), (MergedExport(), not has_adapter or recipe.method.can_merge)):
        target = folder / exporter.type
        with pair.tuned() as tuned:
            if is_possible:
                assert export(exporter, source, target, trained=tuned, prompts=[ids], card=lambda verification: "card").passed
                assert str(base_dir) not in "".join(file.read_text("utf-8") for file in target.glob("*config.json"))
            else:
                with pytest.raises(NoEffectError, match="no adapter|cannot be merged"):
                    export(exporter, source, target, trained=tuned, prompts=[ids], card=lambda verification: "card")


@pytest.mark.parametrize(("method", "objective"), cases(offered=False))
def test_a_pair_that_is_not_offered_says_what_to_use(method: dict[str, Any], objective: str) -> None:
    assert "; use " in (refusal(method, objective) or "")


@pytest.mark.parametrize(("method", "objective"), cases(offered=True))
def test_a_pair_trains_saves_loads_talks_merges_and_resumes(
    method: dict[str, Any], objective: str, tmp_path: Path, base_dir: Path, renderer: ChatRenderer
) -> None:
    recipe = recipe_of(method, objective)
    run_dir = prepare(tmp_path / "whole", recipe, renderer)
    assert run(recipe, run_dir, Reporter(run_dir), model_dir=base_dir) == "finished"
    result = run_dir.adapter if recipe.method.makes_adapter else run_dir.model
    ids = renderer.prompt_ids(CHATS[0]["messages"][:1])

    # The loss went down.
    losses = [line["loss"] for line in read_jsonl(run_dir.metrics) if "loss" in line]
    assert len(losses) == NUM_STEPS
    if not recipe.objective.is_online:  # its loss is taken on other answers at every step
        assert losses[-1] < losses[0]

    # What was saved is what was trained, and not the base model.
    base, _ = base_model(recipe.model_copy(update={"training": recipe.training.model_copy(update={"path": "reference"})}), base_dir, "cpu")
    trained = recipe.method.apply(base, fused=False)  # type: ignore[attr-defined]
    checkpoint.restore_weights(trained, checkpoint.load(checkpoint.step_dir(run_dir.checkpoints, NUM_STEPS)).weights)
    tuned_dir = {"adapter_dir" if recipe.method.makes_adapter else "model_dir": result}
    is_reward_model = recipe.objective.makes_reward_model
    pair = ModelPair(base_dir, dtype="float32", quantisation=recipe.method.quantisation, is_reward_model=is_reward_model, **tuned_dir)  # type: ignore[arg-type]
    expected = logits(trained, ids)
    size = float(expected.abs().max())
    with pair.tuned() as tuned, pair.base() as base:
        before = logits(base, ids)
    with pair.tuned() as tuned:
        assert float((logits(tuned, ids) - expected).abs().max()) < 1e-4 * size
    assert float((before - expected).abs().max()) > 1e-3 * size

    # A reward model does not talk; its exports are compared by their scores (tests/numerics/test_reward_model.py).
    if not is_reward_model:
        assert float((logits(stock_model(recipe, base_dir, run_dir), ids) - expected).abs().max()) < 1e-4 * size
        check_answers(pair, renderer, ids)
        check_exports(recipe, base_dir, run_dir, pair, ids, tmp_path)

    # Killed between two checkpoints and started again, it ends bitwise the same.
    killed = prepare(tmp_path / "killed", recipe, renderer)
    with pytest.raises(Killed):
        run(recipe, killed, Reporter(killed, die_after(3)), model_dir=base_dir)
    assert [path.name for path in killed.checkpoints.glob("step-*")] == ["step-000002"]
    assert run(recipe, killed, Reporter(killed), model_dir=base_dir) == "finished"
    assert [line["loss"] for line in read_jsonl(killed.metrics) if "loss" in line] == losses
    for file in result.glob("*.safetensors"):
        assert file.read_bytes() == (killed.path / result.name / file.name).read_bytes()
    shutil.rmtree(tmp_path)  # full models of every pair would fill the disk


@pytest.fixture(scope="module")
def wide_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose adapters are large enough for 8-bit moments."""
    return write_model(tmp_path_factory.mktemp("models") / "wide", hidden_size=128, intermediate_size=128)


@pytest.mark.parametrize("optimizer", get_args(OptimConfig.model_fields["optimizer"].annotation))
@pytest.mark.parametrize("method", [{"type": "lora", "rank": 32}, {"type": "full"}], ids=["lora", "full"])
def test_a_killed_run_ends_bitwise_the_same_with_every_optimizer(
    method: dict[str, Any], optimizer: str, tmp_path: Path, wide_dir: Path, renderer: ChatRenderer
) -> None:
    if optimizer == "muon" and method["type"] == "lora":
        with pytest.raises(ValueError, match="use adamw"):
            recipe_of(method, "sft", {"optimizer": optimizer})
        return
    optim = {"optimizer": optimizer, "learning_rate": 0.001, "weight_decay": 0.01, "neftune_alpha": 5.0}  # noise is drawn again the same
    recipe = recipe_of(method, "sft", optim)
    whole, killed = (prepare(tmp_path / name, recipe, renderer) for name in ("whole", "killed"))

    run(recipe, whole, Reporter(whole), model_dir=wide_dir)
    with pytest.raises(Killed):
        run(recipe, killed, Reporter(killed, die_after(3)), model_dir=wide_dir)
    run(recipe, killed, Reporter(killed), model_dir=wide_dir)

    name = "adapter/adapter_model.safetensors" if recipe.method.makes_adapter else "model/model.safetensors"
    assert (killed.path / name).read_bytes() == (whole.path / name).read_bytes()
    losses = [line["loss"] for line in read_jsonl(killed.metrics) if "loss" in line]
    assert losses == [line["loss"] for line in read_jsonl(whole.metrics) if "loss" in line]
    assert losses[-1] < losses[0]
    state = checkpoint.load(checkpoint.step_dir(killed.checkpoints, NUM_STEPS)).optimizer
    assert any(value.dtype == torch.uint8 for value in state.values()) == (optimizer == "adamw_8bit")
    shutil.rmtree(tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("method", list(METHODS))
def test_a_method_trains_and_loads_on_a_gpu_in_bfloat16(method: str, tmp_path: Path, wide_dir: Path, renderer: ChatRenderer) -> None:
    recipe = recipe_of({"type": method, **VARIANTS.get(method, [{}])[0]}, "sft", dtype="bfloat16")
    run_dir = prepare(tmp_path / "run", recipe, renderer)
    assert run(recipe, run_dir, Reporter(run_dir), model_dir=wide_dir, device="cuda") == "finished"

    losses = [line["loss"] for line in read_jsonl(run_dir.metrics) if "loss" in line]
    assert losses[-1] < losses[0]
    tuned_dir = {"adapter_dir": run_dir.adapter} if recipe.method.makes_adapter else {"model_dir": run_dir.model}
    pair = ModelPair(wide_dir, dtype="bfloat16", device="cuda", quantisation=recipe.method.quantisation, **tuned_dir)  # type: ignore[arg-type]
    check_answers(pair, renderer, renderer.prompt_ids(CHATS[0]["messages"][:1]))
