"""The whole evaluation stage on a tiny random model, against plain Transformers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from danlu.data.chat import ChatRenderer
from danlu.errors import EvaluationError
from danlu.evaluation.report import build
from danlu.evaluation.run import run
from danlu.files import read_json, read_jsonl
from danlu.models import generate
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m['content'] }}<|im_end|>{% endif %}\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SENTENCES = ["The quick brown fox jumps over the lazy dog.", "张家界在湖南省西北部。", "武陵源的门票四天内有效。", "Where is Zhangjiajie? It is in Hunan."] * 3


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    core.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    )
    found = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=special)
    found.chat_template = TEMPLATE
    return found


def tiny_model(vocab_size: int, seed: int) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        initializer_range=0.15,
        tie_word_embeddings=False,
    )
    return Qwen3ForCausalLM(config).eval()


class TwoModels:
    """Base and tuned as two models; counts how often each is asked for."""

    def __init__(self, tokenizer: Any, base: Any, tuned: Any) -> None:
        self.tokenizer, self.renderer, self.models, self.num_opened = tokenizer, ChatRenderer(tokenizer), (base, tuned), 0

    @contextmanager
    def base(self) -> Iterator[Any]:
        self.num_opened += 1
        yield self.models[0]

    @contextmanager
    def tuned(self) -> Iterator[Any]:
        self.num_opened += 1
        yield self.models[1]


@torch.no_grad()
def score(model: Any, examples: Any) -> tuple[np.ndarray, np.ndarray]:
    """One example at a time, as a textbook would."""
    nats, tokens = [], []
    for example in examples:
        ids, mask = torch.tensor(example.ids.astype(np.int64)), torch.tensor(example.mask)
        log_probs = model(ids[None]).logits[0, :-1].double().log_softmax(-1)
        nats.append(-log_probs[torch.arange(len(ids) - 1), ids[1:]][mask[1:]].sum().item())
        tokens.append(int(mask[1:].sum()))
    return np.array(nats), np.array(tokens)


def chat(line: int, question: str, answer: str) -> dict[str, Any]:
    return {"line": line, "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


TEST_ROWS = [chat(i, f"{'Where is' if i % 2 else '哪里是'} place {i}{'?' * i}", f"{'在湖南省。' if i % 3 else 'It is in Hunan'} {i}") for i in range(1, 13)]


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    import orjson

    found = RunDir.create(tmp_path / "run")
    found.data.mkdir()
    splits = {"train": [chat(90, "Hello there, my friend", "Hello")], "validation": [], "test": TEST_ROWS}
    for name, rows in splits.items():
        (found.data / f"{name}.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    (tmp_path / "general.jsonl").write_bytes(
        b"".join(
            orjson.dumps({"messages": chat(0, q, a)["messages"], "language": lang}) + b"\n"
            for q, a, lang in [("1+1?", "It is 2.", "en"), ("你好", "你好呀", "zh")] * 5
        )
    )
    return found


def recipe_of(run_dir: RunDir, **evaluation: Any) -> Recipe:
    suites = ["heldout", {"type": "retention", "file": str(run_dir.path.parent / "general.jsonl")}]
    return Recipe.model_validate(
        {"base_model": "x", "dataset": "x", "data": {"max_seq_len": 256}, "evaluation": {"suites": suites, "max_new_tokens": 12, **evaluation}}
    )


def test_the_report_is_what_plain_transformers_gives(tokenizer: Any, run_dir: RunDir) -> None:
    base, tuned = tiny_model(len(tokenizer), 1), tiny_model(len(tokenizer), 2)
    card = run(recipe_of(run_dir), run_dir, Reporter(run_dir), pair=TwoModels(tokenizer, base, tuned), score=score)
    report = build(recipe_of(run_dir), run_dir)
    texts = [tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in TEST_ROWS]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    labels = batch["input_ids"].clone()
    for row, text in enumerate(texts):
        start = len(tokenizer(text[: text.index("assistant\n") + len("assistant\n")], add_special_tokens=False)["input_ids"])
        labels[row, :start] = -100
        labels[row, len(tokenizer(text[: text.rindex("<|im_end|>") + len("<|im_end|>")], add_special_tokens=False)["input_ids"]) :] = -100
    num_bytes = sum(len(row["messages"][1]["content"].encode()) for row in TEST_ROWS)

    for name, model in (("base", base), ("tuned", tuned)):
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        nats = F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), reduction="sum", ignore_index=-100).item()
        count = int((labels[:, 1:] != -100).sum())
        assert report["metrics"]["nll_per_token"][name] == pytest.approx(nats / count, rel=1e-5)
        assert report["metrics"]["perplexity"][name] == pytest.approx(np.exp(nats / count), rel=1e-4)
        assert report["metrics"]["nll_per_byte"][name] == pytest.approx(nats / num_bytes, rel=1e-5)
    assert report["verdict"]["label"] == card["verdict"]["label"]
    assert report["verdict"]["num_examples"] == 12
    assert set(report["retention"]["by_language"]) == {"en", "zh"}
    assert {"exact_match", "rouge_l", "bleu", "chrf"} < set(report["metrics"])


def test_a_batch_generates_what_each_prompt_generates_alone(tokenizer: Any) -> None:
    model, renderer = tiny_model(len(tokenizer), 3), ChatRenderer(tokenizer)
    model.generation_config = GenerationConfig(do_sample=True, repetition_penalty=5.0, eos_token_id=2)
    prompts = [renderer.prompt_ids(row["messages"][:1]) for row in TEST_ROWS]
    together = {i: c for batch in generate.generate(model, renderer, prompts, max_new_tokens=20) for i, c in batch.items()}

    assert model.generation_config.repetition_penalty == 5.0
    stops = {tokenizer.convert_tokens_to_ids("<|im_end|>")}
    for i, prompt in enumerate(prompts):
        ids = list(prompt)
        while len(ids) < len(prompt) + 20 and ids[-1] not in stops or len(ids) == len(prompt):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        new = ids[len(prompt) :]
        expected = generate.Completion(tokenizer.decode(new, skip_special_tokens=True).strip(), len(new), new[-1] not in stops)
        assert together[i] == expected


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_an_adapter_with_packed_attention_generates_and_is_left_as_it_was(tokenizer: Any) -> None:
    from peft import LoraConfig, get_peft_model

    from danlu.training.kernels.attention import NAME

    plain, model, renderer = tiny_model(len(tokenizer), 4), tiny_model(len(tokenizer), 4), ChatRenderer(tokenizer)
    model.set_attn_implementation(NAME)
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", r=4, init_lora_weights=False)).eval()
    prompts = [renderer.prompt_ids(row["messages"][:1]) for row in TEST_ROWS[:5]]

    def answers(any_model: Any) -> dict[int, generate.Completion]:
        return {i: c for batch in generate.generate(any_model, renderer, prompts, max_new_tokens=8) for i, c in batch.items()}

    stored = model.generation_config
    with adapted.disable_adapter():
        assert answers(adapted) == answers(plain)
    with_adapter = answers(adapted)
    assert model.config._attn_implementation == NAME and model.generation_config is stored
    assert with_adapter == answers(adapted.merge_and_unload()) != answers(plain)


def test_batches_keep_similar_lengths_and_fit_the_cache() -> None:
    batches = generate.plan_batches([5, 100, 7, 90, 5], max_new_tokens=10, bytes_per_token=generate.MAX_CACHE_BYTES // 250)
    assert batches == [[1, 3], [2, 0, 4]]
    assert generate.plan_batches([], 10, 1) == []


def test_a_killed_evaluation_goes_on_and_a_finished_one_is_not_repeated(tokenizer: Any, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "MAX_ROWS", 4)
    recipe, pair = recipe_of(run_dir), TwoModels(tokenizer, tiny_model(len(tokenizer), 1), tiny_model(len(tokenizer), 2))
    whole = RunDir.create(run_dir.path.parent / "whole")
    (whole.path / "data").symlink_to(run_dir.data)
    expected = run(recipe, whole, Reporter(whole), pair=pair, score=score)

    def killed(kind: str, fields: dict[str, Any]) -> None:
        if kind == "progress" and fields["what"] == "heldout: answers, tuned":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe, run_dir, Reporter(run_dir, killed), pair=pair, score=score)
    path = run_dir.evaluation / "generations.jsonl"
    stored = path.read_bytes()
    assert stored.count(b"\n") == 16
    path.write_bytes(stored + b'{"suite": "heldout", "mod')
    found = run(recipe, run_dir, Reporter(run_dir), pair=pair, score=score)
    opened = pair.num_opened
    assert run(recipe, run_dir, Reporter(run_dir), pair=pair, score=score) == found
    assert pair.num_opened == opened
    assert path.read_bytes() == (whole.evaluation / "generations.jsonl").read_bytes()
    assert {k: v for k, v in found.items() if k != "seconds"} == {k: v for k, v in expected.items() if k != "seconds"}


def test_plain_text_runs_are_measured_without_generation(tokenizer: Any, run_dir: RunDir) -> None:
    import orjson

    texts = [{"line": i, "text": f"张家界 {i} is in Hunan"} for i in range(12)]
    (run_dir.data / "test.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in texts))
    recipe = recipe_of(run_dir).model_copy(update={"objective": Recipe.model_validate({"base_model": "x", "dataset": "x", "objective": "pretrain"}).objective})
    run(recipe, run_dir, Reporter(run_dir), pair=TwoModels(tokenizer, tiny_model(len(tokenizer), 1), tiny_model(len(tokenizer), 2)), score=score)
    assert set(build(recipe, run_dir)["metrics"]) == {"nll_per_token", "perplexity", "nll_per_byte"}
    assert not list(read_jsonl(run_dir.evaluation / "generations.jsonl"))
    first = len(tokenizer.decode(tokenizer("张家界")["input_ids"][:1]).encode())
    assert read_json(run_dir.evaluation / "heldout.json")["bytes"][0] == len(texts[0]["text"].encode()) - first


def test_broken_weights_are_an_error_not_a_number(tokenizer: Any, run_dir: RunDir) -> None:
    base, tuned = tiny_model(len(tokenizer), 1), tiny_model(len(tokenizer), 2)
    with torch.no_grad():
        tuned.lm_head.weight[3] = float("nan")
    with pytest.raises(EvaluationError, match="heldout: likelihood, tuned: the model gives NaN"):
        run(recipe_of(run_dir), run_dir, Reporter(run_dir), pair=TwoModels(tokenizer, base, tuned), score=score)


def test_prompts_that_fill_the_context_are_skipped_and_listed(tokenizer: Any, run_dir: RunDir) -> None:
    base, tuned = tiny_model(len(tokenizer), 1), tiny_model(len(tokenizer), 2)
    for model in (base, tuned):
        model.config.max_position_embeddings = 40
    run(recipe_of(run_dir), run_dir, Reporter(run_dir), pair=TwoModels(tokenizer, base, tuned), score=score)
    generation = read_json(run_dir.evaluation / "heldout.json")["generation"]
    renderer = ChatRenderer(tokenizer)
    too_long = [i for i, row in enumerate(TEST_ROWS) if len(renderer.prompt_ids(row["messages"][:1])) + 12 > 40]
    assert 0 < len(too_long) < 12 and [skipped["example"] for skipped in generation["skipped"]] == too_long
    assert generation["examples"] == [i for i in range(12) if i not in too_long]


def test_no_test_rows_gives_no_verdict(tokenizer: Any, run_dir: RunDir) -> None:
    (run_dir.data / "test.jsonl").write_bytes(b"")
    model = tiny_model(len(tokenizer), 1)
    card = run(recipe_of(run_dir), run_dir, Reporter(run_dir), pair=TwoModels(tokenizer, model, model), score=score)
    assert card["verdict"] is None and card["metrics"] == {}
    assert [w["code"] for w in card["warnings"]] == ["too_few_test_rows"]
    assert card["retention"]["label"] == "kept"
