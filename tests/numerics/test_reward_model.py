"""A trained reward model: both paths give its scores, and so do stock Transformers and PEFT."""

from pathlib import Path
from typing import Any

import pytest
import torch

from danlu.data.pack import EncodedExample, TokenFile
from danlu.errors import NoEffectError
from danlu.models.load import load_model, load_tokenizer
from danlu.models.pair import ModelPair
from danlu.recipe.load import load_recipe
from danlu.services import exports
from danlu.services.chat import ChatSession
from danlu.services.runs import run
from danlu.training.batch import PackedBatch
from danlu.training.kernels import attention
from danlu.training.reward_model import fast_rewards, reference_rewards, score_rewards
from models import recipe_values
from rows import write_rows


@pytest.fixture(scope="module", params=["lora", "full"])
def reward_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Any:
    folder = tmp_path_factory.mktemp(f"reward-{request.param}")
    method = {"type": "lora", "rank": 4} if request.param == "lora" else {"type": "full"}
    optim = {"max_steps": 10, "global_batch_size": 8, "learning_rate": 0.01 if request.param == "lora" else 0.001}
    values = recipe_values(small_model, write_rows(folder / "rows.jsonl", "preference", 120), method=method, optim=optim, objective={"type": "reward"})
    return run(load_recipe(values=values), run_dir=folder / "run")


def texts(run_dir: Any) -> list[EncodedExample]:
    return list(TokenFile(run_dir.data / "test.tokens"))


def test_it_prefers_chosen_answers_it_never_saw_and_says_so(reward_run: Any) -> None:
    verdict = reward_run.report["verdict"]

    assert (verdict["metric"], verdict["base"], verdict["tuned"], verdict["label"]) == ("preference_accuracy", 0.5, 1.0, "improved")
    assert set(reward_run.report["metrics"]) == {"preference_accuracy", "preference_margin"}


def test_stock_transformers_and_peft_give_the_same_scores(reward_run: Any, small_model: Path) -> None:
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoModelForSequenceClassification

    run_dir = reward_run.run_dir
    stock: Any
    if run_dir.adapter.exists():
        stock = AutoPeftModelForSequenceClassification.from_pretrained(run_dir.adapter, num_labels=1)
        pair = ModelPair(small_model, adapter_dir=run_dir.adapter, is_reward_model=True)
    else:
        stock = AutoModelForSequenceClassification.from_pretrained(run_dir.model)
        pair = ModelPair(small_model, model_dir=run_dir.model, is_reward_model=True)
    examples = texts(run_dir)
    with torch.no_grad():
        expected = [stock.eval()(input_ids=torch.from_numpy(e.ids.astype("int64"))[None]).logits.item() for e in examples]

    with pair.tuned() as model:
        for path in ("fast", "reference"):
            negated, counts = score_rewards(model, examples, micro_batch_tokens=64, device="cpu", path=path)  # type: ignore[arg-type]
            assert -negated == pytest.approx(expected, rel=1e-4, abs=1e-5) and set(counts) == {1}
    with pair.base() as model:
        assert set(score_rewards(model, examples, micro_batch_tokens=64, device="cpu", path="reference")[0]) == {0.0}


def test_the_score_and_its_gradients_are_the_same_on_both_paths(small_model: Path) -> None:
    pad = load_tokenizer(small_model).pad_token_id
    ids = [[5, 6, 7, 8, 9], [10, 11, pad, 12, pad], [13]]
    examples = [EncodedExample(torch.tensor(i).numpy().astype("uint32"), torch.ones(len(i), dtype=torch.bool).numpy()) for i in ids]
    found = {}
    for path in ("reference", "fast"):
        model = load_model(small_model, attention=attention.NAME if path == "fast" else None, is_reward_model=True)
        model.score.weight.data.normal_(generator=torch.Generator().manual_seed(1))
        scores = (fast_rewards if path == "fast" else reference_rewards)(model, PackedBatch.from_examples(examples))
        (scores * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
        found[path] = (scores.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None})

    torch.testing.assert_close(found["fast"][0], found["reference"][0], rtol=1e-5, atol=1e-6)
    assert found["fast"][1].keys() == found["reference"][1].keys()
    for name, gradient in found["reference"][1].items():
        assert float((found["fast"][1][name] - gradient).norm() / gradient.norm().clamp_min(1e-8)) <= 1e-5, name


def test_nobody_can_talk_to_it(reward_run: Any) -> None:
    with pytest.raises(NoEffectError, match="made a reward model") as caught:
        ChatSession(str(reward_run.run_dir.path))

    assert "danlu report" in caught.value.fix


def test_its_exports_are_verified_by_their_scores(reward_run: Any) -> None:
    kinds = ["adapter", "merged"] if reward_run.run_dir.adapter.exists() else ["merged"]
    for kind in kinds:
        folder = exports.export(reward_run.run_dir, kind)
        assert (folder / "verification.json").exists()
