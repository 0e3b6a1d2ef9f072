from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.bundled import FOLDER
from danlu.data.chat import ChatRenderer
from danlu.data.encode import EncodeAccount, encode_batch
from danlu.errors import TemplateError
from danlu.models.load import load_tokenizer
from danlu.training.objectives.sft import SFT

CHAT = [
    {"role": "system", "content": "简短回答。"},
    {"role": "user", "content": "你好 👋"},
    {"role": "assistant", "content": "您好！\n有什么可以帮您？"},
    {"role": "user", "content": "  1+1=?\t"},
    {"role": "assistant", "content": "2"},
]


def trained_text(renderer: ChatRenderer, messages: list[dict[str, str]], **options: object) -> str:
    encoded = renderer.encode([renderer.render(messages, **options)])[0]  # type: ignore[arg-type]
    return str(renderer.tokenizer.decode([int(i) for i, m in zip(encoded.ids, encoded.mask, strict=True) if m]))


@pytest.fixture(scope="module")
def tiny() -> ChatRenderer:
    return ChatRenderer(load_tokenizer(FOLDER / "tiny"))


def real_renderer(shared_data: Path, name: str) -> ChatRenderer:
    return ChatRenderer(load_tokenizer(shared_data / "tokenizers" / name))


def test_the_text_is_the_templates_own_byte_for_byte(tiny: ChatRenderer) -> None:
    assert tiny.render(CHAT).text == tiny.tokenizer.apply_chat_template(CHAT, tokenize=False)
    ids = tiny.encode([tiny.render(CHAT)])[0].ids
    assert list(ids) == tiny.tokenizer.apply_chat_template(CHAT)["input_ids"]


def test_only_the_assistants_turns_and_their_end_are_trained_on(tiny: ChatRenderer) -> None:
    assert trained_text(tiny, CHAT) == "您好！\n有什么可以帮您？<|im_end|>2<|im_end|>"


def test_turns_can_be_left_out_of_training(tiny: ChatRenderer) -> None:
    assert trained_text(tiny, CHAT, train_on=[False, False, False, False, True]) == "2<|im_end|>"


@pytest.mark.shared
@pytest.mark.parametrize("name", ["qwen2", "minimind"])
def test_real_templates_without_spans_are_masked_by_prefix(shared_data: Path, name: str) -> None:
    renderer = real_renderer(shared_data, name)
    end = renderer.tokenizer.eos_token
    assert trained_text(renderer, CHAT) == f"您好！\n有什么可以帮您？{end}2{end}"
    assert renderer.render(CHAT).text == renderer.tokenizer.apply_chat_template(CHAT, tokenize=False)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30)), min_size=1, max_size=4))
def test_the_mask_covers_exactly_the_completions_whatever_they_hold(turns: list[tuple[str, str]]) -> None:
    renderer = ChatRenderer(load_tokenizer(FOLDER / "tiny"))
    messages = [m for user, assistant in turns for m in ({"role": "user", "content": user}, {"role": "assistant", "content": assistant})]
    rendered = renderer.render(messages)

    assert "".join(rendered.text[a:b] for a, b in rendered.spans) == "".join(a + "<|im_end|>" for _, a in turns)
    encoded = renderer.encode([rendered])[0]
    untrained = sum(1 for _, a in turns for _ in a)  # at least one token per turn, at most all characters in bytes plus the end
    assert len(turns) <= int(encoded.mask.sum()) <= 4 * untrained + len(turns)


def test_a_tokenizer_without_a_template_gets_the_documented_default() -> None:
    tokenizer = load_tokenizer(FOLDER / "tiny")
    tokenizer.chat_template = None
    renderer = ChatRenderer(tokenizer)

    assert renderer.uses_default_template
    assert renderer.render(CHAT[1:3]).text == "User: 你好 👋\nAssistant:\n您好！\n有什么可以帮您？<|im_end|>\n"
    assert trained_text(renderer, CHAT[1:3]) == "您好！\n有什么可以帮您？<|im_end|>"
    assert renderer.render(CHAT[1:3]).text.startswith(renderer.prompt_text(CHAT[1:2]))


def test_a_template_that_refuses_the_roles_says_so() -> None:
    tokenizer = load_tokenizer(FOLDER / "tiny")
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(TemplateError, match="roles: user user") as caught:
        ChatRenderer(tokenizer).render([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    assert caught.value.why == "roles must alternate"


def encode(messages: list[dict[str, str]], limit: int, truncation: str = "oldest_turns") -> tuple[list[str], EncodeAccount]:
    renderer, account = ChatRenderer(load_tokenizer(FOLDER / "tiny")), EncodeAccount()
    blocks = list(encode_batch([{"line": 7, "messages": messages}], account, SFT(), renderer, limit, truncation))
    assert all(len(b.ids) <= limit for group in blocks for b in group)
    return [renderer.tokenizer.decode(list(b.ids)) for group in blocks for b in group], account


def test_what_is_too_long_loses_its_oldest_turns_first() -> None:
    turns = [m for n in range(6) for m in ({"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"answer {n}"})]
    texts, account = encode([{"role": "system", "content": "Be kind."}, *turns], 64)

    assert "Be kind." in texts[0] and "question 0" not in texts[0] and texts[0].endswith("answer 5<|im_end|>\n")
    assert [entry["line"] for entry in account.truncated] == [7] and not account.dropped


def test_then_the_middle_of_the_prompt_and_never_the_answer() -> None:
    texts, account = encode([{"role": "user", "content": "start " + "word " * 500 + "end"}, {"role": "assistant", "content": "the answer"}], 64)

    assert texts[0].startswith("<|im_start|>user\nstart") and "end<|im_end|>" in texts[0] and texts[0].endswith("the answer<|im_end|>\n")
    assert len(account.truncated) == 1


def test_an_answer_that_does_not_fit_by_itself_is_dropped_with_its_line() -> None:
    texts, account = encode([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "word " * 500}], 64)

    assert not texts and account.dropped == [{"line": 7, "reason": "the answer alone is longer than 64 tokens"}]


@pytest.mark.parametrize("name", ["tokenizers/minimind", "tokenizers/qwen2", "models/stories260K"])
@pytest.mark.parametrize("has_template", [True, False])
def test_the_prompt_of_an_answer_is_what_training_saw_before_it_token_by_token(shared_data: Path, name: str, has_template: bool) -> None:
    tokenizer = load_tokenizer(shared_data / name)
    if not has_template:
        tokenizer.chat_template = None
    renderer = ChatRenderer(tokenizer)
    for answer in ("I am here.", "你好！", "{name}", "1. one\n2. two"):
        messages = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": answer}]
        prompt, [encoded] = renderer.prompt_ids(messages[:1]), renderer.encode([renderer.render(messages)])

        assert encoded.ids[: len(prompt)].tolist() == prompt
        assert not encoded.mask[: len(prompt)].any() and encoded.mask[len(prompt)]
