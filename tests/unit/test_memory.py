"""The forecast of memory: counts from config.json, how it grows and shrinks, what would fit, and answers to absurd sizes."""

from typing import Any

import pytest

from danlu.errors import ModelError
from danlu.models import memory
from danlu.models.forecast import Lengths, forecast
from danlu.models.memory import MicroBatch, Plan, fit, micro_batches, peak_memory
from danlu.models.shape import ModelShape
from danlu.models.trained import trained_by
from danlu.recipe.recipe import Recipe

GIB = 2**30
CONFIG: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
}
LENGTHS = Lengths([200, 300, 400, 500] * 50, [80, 120, 160, 200] * 50, 200, 20)


def recipe(**values: Any) -> Recipe:
    optim = {"learning_rate": 1e-4, "num_epochs": 2.0, "global_batch_size": 8, "micro_batch_tokens": 2048, **values.pop("optim", {})}
    training = {"dtype": "float32", "validate_every_steps": 5, **values.pop("training", {})}
    data = {"max_seq_len": 512, "format": "messages", **values.pop("data", {})}
    return Recipe.model_validate({"base_model": "b", "dataset": "d", "optim": optim, "training": training, "data": data, **values})


def peak(shape: ModelShape | None = None, **values: Any) -> int:
    return peak_memory(shape or ModelShape.from_config(CONFIG), recipe(**values), LENGTHS.tokens, LENGTHS.labels).peak_bytes


def test_the_weights_of_a_published_model_are_counted() -> None:
    assert ModelShape.from_config(CONFIG).num_parameters == 596_049_920  # Qwen3-0.6B


def test_stock_layers_keep_what_their_method_needs_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against measurements of a model of 6 M parameters (docs/forecast.md): without adapters no inputs, with DoRA two outputs more."""
    shape, batch = ModelShape.from_config(CONFIG), MicroBatch(2048, 800, 500, 5)

    def kept(method: Any) -> float:
        return Plan(shape, recipe(method=method), batch, trained_by(recipe(method=method), shape), False, "cpu").saved_bytes(3) / (4 * 2048)

    d, q, k, i = 1024, 2048, 1024, 3072
    norms_and_heads, attention, outputs = 2 * d, q + k + 2 * q + 2 * k, q + 2 * k + d + 2 * i + d
    assert kept("p_tuning_v2") == norms_and_heads + attention + 3 * i
    assert kept("ia3") == norms_and_heads + attention + 4 * i + 2 * k
    assert kept({"type": "lora", "dropout": 1e-9, "use_dora": True}) - kept({"type": "lora", "dropout": 1e-9}) == 2 * outputs
    monkeypatch.setattr(memory, "uses_onednn", lambda: True)
    assert [memory.kernels_bytes([100, 300], [2048], [800], is_stock=is_stock) // memory.KERNEL_BYTES for is_stock in (False, True)] == [66, 10]


def test_a_config_without_sizes_is_refused() -> None:
    with pytest.raises(ModelError, match="has no hidden_size"):
        ModelShape.from_config({"model_type": "qwen3"})
    with pytest.raises(ModelError, match="num_hidden_layers is 0"):
        ModelShape.from_config(CONFIG | {"num_hidden_layers": 0})


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"optim": {"micro_batch_tokens": 512}}, {}),
        ({}, {"method": {"type": "full"}}),
        ({"method": {"type": "lora", "rank": 8}}, {"method": {"type": "lora", "rank": 256}}),
        ({}, {"training": {"path": "reference"}}),
        ({}, {"method": {"type": "lora", "dropout": 0.1}}),
        ({"method": {"type": "qlora", "bits": 4}}, {"method": {"type": "qlora", "bits": 8}}),
        ({"method": {"type": "qlora", "bits": 8}, "training": {"path": "reference"}}, {"training": {"path": "reference"}}),
        ({"training": {"compute": "int8"}}, {}),
        ({"method": {"type": "freeze", "num_layers": 2}}, {"method": {"type": "full"}}),
        ({"method": {"type": "lora", "layers": [26, 27]}}, {}),
        ({"method": {"type": "full"}, "optim": {"optimizer": "adafactor"}}, {"method": {"type": "full"}, "optim": {"optimizer": "lion"}}),
        ({"method": {"type": "full"}, "optim": {"optimizer": "lion"}}, {"method": {"type": "full"}}),
        ({"method": {"type": "prompt_tuning", "num_virtual_tokens": 8}}, {"method": {"type": "prompt_tuning", "num_virtual_tokens": 100}}),
    ],
)
def test_what_holds_less_is_forecast_to_need_less(less: dict[str, Any], more: dict[str, Any]) -> None:
    assert peak(**less) < peak(**more)


def test_the_parts_of_a_full_run_are_those_of_the_textbook() -> None:
    """4 bytes of weight, 4 of gradient and 8 of AdamW for each parameter (Rajbhandari et al. 2020, section 3, in float32)."""
    shape = ModelShape.from_config(CONFIG)
    parts = peak_memory(shape, recipe(method={"type": "full"}), LENGTHS.tokens, LENGTHS.labels)

    assert parts.weights_bytes == 4 * shape.num_parameters and parts.optimizer_bytes == 8 * shape.num_parameters
    assert parts.adapters_bytes == 0 and parts.gradients_bytes == 4 * shape.num_parameters
    assert sum(v for k, v in parts.to_dict().items() if k.endswith("_bytes") and k != "peak_bytes") == parts.peak_bytes


def test_a_frozen_layer_below_the_first_trained_one_keeps_nothing() -> None:
    shape = ModelShape.from_config(CONFIG)
    batch = micro_batches(recipe(), LENGTHS.tokens, LENGTHS.labels, 2048)[0]
    kept = []
    for method in ({"type": "lora"}, {"type": "lora", "layers": [14, 15]}):
        plan = Plan.of(shape, recipe(method=method), batch, is_accumulated=False)
        kept.append(max(saved for phase, _, _, saved in plan.passes(0) if phase == "forward"))

    assert kept[1] == pytest.approx(kept[0] / 2, rel=0.02)


def test_a_micro_batch_is_no_wider_than_a_step() -> None:
    """Four examples a step are all a pass can get, however many tokens it may hold."""
    batches = micro_batches(recipe(optim={"global_batch_size": 4}), LENGTHS.tokens, LENGTHS.labels, 100_000)

    assert max(batch.num_examples for batch in batches) == 4 and max(batch.tokens for batch in batches) <= 2000


@pytest.mark.parametrize(("needed", "expected"), [(70, "fits"), (80, "fits"), (81, "tight"), (100, "tight"), (101, "too_big")])
def test_fit_has_three_answers(needed: int, expected: str) -> None:
    assert fit(needed, 100) == expected


def test_sizes_that_no_machine_has_are_answered_at_once() -> None:
    shape = ModelShape.from_config(CONFIG | {"hidden_size": 10**6, "intermediate_size": 4 * 10**6, "num_hidden_layers": 1000})
    found = forecast(shape, recipe(method={"type": "lora", "rank": 10**9}), LENGTHS, available_bytes=16 * GIB)

    assert found.fit == "too_big" and found.memory.peak_bytes > 10**16
    assert found.alternatives == []


def test_what_would_fit_comes_in_the_order_of_what_it_costs() -> None:
    shape = ModelShape.from_config(CONFIG)
    need = peak(shape)

    small = forecast(shape, recipe(), LENGTHS, available_bytes=need - 2**20)
    assert small.alternatives[0].changes == {"optim.micro_batch_tokens": 1024}

    large = ModelShape.from_config(CONFIG | {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32})
    found = forecast(large, recipe(), LENGTHS, available_bytes=16 * GIB).alternatives
    assert found[0].changes == {"optim.micro_batch_tokens": 512, "method": {"type": "qlora", "rank": 16, "alpha": 32.0}}
    assert all(alternative.peak_bytes <= 16 * GIB and alternative.en and alternative.zh for alternative in found)


def test_a_rank_beyond_reason_is_answered_with_a_smaller_one() -> None:
    found = forecast(ModelShape.from_config(CONFIG), recipe(method={"type": "lora", "rank": 10**9}), LENGTHS, available_bytes=16 * GIB)

    assert found.fit == "too_big"
    assert next(a for a in found.alternatives if "method.rank" in a.changes).changes["method.rank"] <= 1024


def test_steps_tokens_disk_and_money_are_told() -> None:
    found = forecast(ModelShape.from_config(CONFIG), recipe(), LENGTHS, available_bytes=64 * GIB, tokens_per_second=100.0, price_per_hour=3.6)

    trained = trained_by(recipe(), ModelShape.from_config(CONFIG)).num_parameters
    assert (found.num_steps, found.num_tokens, found.fit) == (50, 140_000, "fits")
    assert found.training_seconds == 1400.0 and found.cost == pytest.approx(1.4)
    assert found.disk["checkpoints_bytes"] == 2 * 12 * trained + 4 * trained
    assert found.truncated_share == 0.0


def test_shortened_examples_are_counted() -> None:
    found = forecast(ModelShape.from_config(CONFIG), recipe(data={"max_seq_len": 300}), LENGTHS, available_bytes=64 * GIB)

    assert found.truncated_share == 0.5 and found.num_tokens == 2 * (200 + 300 + 300 + 300) * 50


def test_processes_divide_the_steps_and_sharded_ones_the_weights_too() -> None:
    shape, full = ModelShape.from_config(CONFIG), recipe(method={"type": "full"})
    one, two, shards = (
        peak_memory(shape, full, LENGTHS.tokens, LENGTHS.labels, num_processes=count, is_sharded=is_sharded)
        for count, is_sharded in ((1, False), (4, False), (4, True))
    )

    assert two.activations_bytes < one.activations_bytes and two.weights_bytes == one.weights_bytes
    assert shards.optimizer_bytes == one.optimizer_bytes // 4
    assert one.weights_bytes // 4 < shards.weights_bytes < one.weights_bytes


def test_answers_that_the_model_will_write_are_counted_as_long_as_they_may_become() -> None:
    shape = ModelShape.from_config(CONFIG)
    written = recipe(objective={"type": "grpo", "num_answers": 4, "max_completion_tokens": 100, "num_iterations": 2}, data={"max_seq_len": 1024})
    found = forecast(shape, written, LENGTHS, available_bytes=256 * GIB)

    assert (found.num_steps, found.num_tokens) == (100, 2 * 200 * 4 * 2 * (350 + 100))
    longer = written.model_copy(update={"objective": written.objective.model_copy(update={"max_completion_tokens": 400})})
    assert forecast(shape, longer, LENGTHS, available_bytes=256 * GIB).memory.activations_bytes > found.memory.activations_bytes


def test_writing_the_answers_can_hold_more_than_learning_from_them() -> None:
    """A wide vocabulary and many answers at once: the probabilities of a token, in float64, outweigh small micro batches."""
    shape = ModelShape.from_config(CONFIG | {"num_hidden_layers": 2, "vocab_size": 10**6})
    written = recipe(objective={"type": "grpo", "num_answers": 8}, optim={"micro_batch_tokens": 64}, data={"max_seq_len": 1024})

    assert peak_memory(shape, written, LENGTHS.tokens, LENGTHS.labels).phase == "generation"


def test_a_second_model_that_says_what_was_before_is_counted() -> None:
    shape = ModelShape.from_config(CONFIG)

    def weights(method: str, **values: Any) -> int:
        written = recipe(objective={"type": "grpo", "beta": 0.1}, method=method, data={"max_seq_len": 1024}, **values)
        return peak_memory(shape, written, LENGTHS.tokens, LENGTHS.labels).weights_bytes

    one = weights("lora")
    assert [weights("full"), weights("lora", start_from="before"), weights("prompt_tuning")] == [2 * one, 2 * one, one]
