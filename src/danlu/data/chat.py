"""The one renderer: messages -> text -> token ids and loss mask, used by training, evaluation, chat and export.

The text is the tokenizer's own chat template, byte for byte. Which characters are trained on comes from the
template's generation spans where it has them, and otherwise from a verified prefix difference: the text up to
the assistant's turn must be a prefix of the text that includes it, or the turn is not trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.data.pack import EncodedExample
from danlu.data.templates import check_template, time_limit
from danlu.errors import TemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]
Span = tuple[int, int]

DEFAULT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ 'Assistant:\n' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['role'] | capitalize + ': ' + message['content'] + '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
"""For base tokenizers without a template: `User: ...` lines, and `Assistant:` with the answer and <eos> on a line of its own.

The answer follows a line break and not a space, because tokenizers join a space to the word after it: the prompt
would end in a token that training never saw there, and the first word would not be trained on. Stored with the adapter."""


@dataclass(frozen=True)
class RenderedChat:
    """Text of a conversation, the character spans that are trained on, and how much each of them counts."""

    text: str
    spans: tuple[Span, ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, text: str, spans: Sequence[Span], weights: Sequence[float] | None = None) -> RenderedChat:
        """Spans that hold nothing are left out; without `weights` all count the same."""
        kept = [(span, float(weight)) for span, weight in zip(spans, weights or [1.0] * len(spans), strict=True) if span[1] > span[0] and weight > 0]
        return cls(text, tuple(span for span, _ in kept), tuple(weight for _, weight in kept))


class ChatRenderer:
    """Renders conversations with one tokenizer's chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.uses_default_template = tokenizer.chat_template is None
        if self.uses_default_template:
            tokenizer.chat_template = DEFAULT_TEMPLATE
        template = tokenizer.chat_template
        if not isinstance(template, str):
            template = template.get("default", next(iter(template.values())))
        check_template(template)
        self.has_generation_spans = "{% generation" in template or "{%- generation" in template

    def prompt_text(self, messages: Sequence[Message], tools: list[Any] | None = None) -> str:
        """Text that asks for the assistant's next turn."""
        return self._apply(messages, tools, add_generation_prompt=True)

    def prompt_ids(self, messages: Sequence[Message], tools: list[Any] | None = None) -> list[int]:
        """Token ids that ask for the assistant's next turn."""
        return list(self.tokenizer(self.prompt_text(messages, tools), add_special_tokens=False)["input_ids"])

    def render(self, messages: Sequence[Message], tools: list[Any] | None = None, train_on: Sequence[float] | None = None) -> RenderedChat:
        """Text and trained spans of a whole conversation.

        `train_on` has one flag or weight per message and narrows which assistant turns are trained on, and how much each counts.

        Raises:
            TemplateError: the template refuses the messages, or no trained span can be told.
        """
        if self.has_generation_spans:
            text, spans = self._render_with_spans(messages, tools)
            if train_on is None:
                return RenderedChat.of(text, spans)
            weights = [weight for message, weight in zip(messages, train_on, strict=True) if message["role"] == "assistant"]
            if len(weights) == len(spans):
                return RenderedChat.of(text, spans, weights)
        return self._render_by_prefix(messages, tools, train_on)

    def render_completion(self, prompt: Sequence[Message], completion: Sequence[Message], tools: list[Any] | None = None) -> RenderedChat:
        """Text of a conversation of which only what follows the prompt is trained on: the assistant's turns of `completion`.

        Raises:
            TemplateError: the template refuses the messages, or no trained span can be told.
        """
        flags = [False] * len(prompt) + [message["role"] == "assistant" for message in completion]
        return self.render([*prompt, *completion], tools, flags)

    def encode(self, chats: Sequence[RenderedChat]) -> list[EncodedExample]:
        """Token ids and loss masks; a token is trained on when it starts inside a span. Parallel in the tokenizer."""
        if not chats:
            return []
        encodings = self.tokenizer([chat.text for chat in chats], add_special_tokens=False, return_offsets_mapping=True)
        examples = []
        for chat, ids, offsets in zip(chats, encodings["input_ids"], encodings["offset_mapping"], strict=True):
            starts = np.asarray([start for start, _ in offsets], np.int64)
            ends = np.asarray([end for _, end in offsets], np.int64)
            mask = np.zeros(len(ids), np.bool_)
            weights = np.ones(len(ids), np.float32) if set(chat.weights) - {1.0} else None
            for (begin, stop), weight in zip(chat.spans, chat.weights, strict=True):
                is_inside = (starts >= begin) & (starts < stop) & (ends > begin)
                mask |= is_inside
                if weights is not None:
                    weights[is_inside] = weight
            examples.append(EncodedExample(np.asarray(ids, np.uint32), mask, weights=weights))
        return examples

    def _apply(self, messages: Sequence[Message], tools: list[Any] | None, **options: Any) -> str:
        from jinja2 import TemplateError as JinjaError

        try:
            with time_limit():
                text = self.tokenizer.apply_chat_template(list(messages), tools=tools, tokenize=False, **options)
        except TemplateError:
            raise
        except (JinjaError, TypeError, KeyError, ValueError) as error:
            raise _refused(messages, error) from error
        return str(text)

    def _render_with_spans(self, messages: Sequence[Message], tools: list[Any] | None) -> tuple[str, list[Span]]:
        from jinja2 import TemplateError as JinjaError
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            with time_limit():
                texts, spans = render_jinja_template(
                    conversations=[list(messages)],
                    tools=tools,
                    chat_template=self.tokenizer.get_chat_template(tools=tools),
                    return_assistant_tokens_mask=True,
                    **self.tokenizer.special_tokens_map,
                )
        except TemplateError:
            raise
        except (JinjaError, TypeError, KeyError, ValueError) as error:
            raise _refused(messages, error) from error
        return str(texts[0]), [(int(a), int(b)) for a, b in spans[0]]

    def _render_by_prefix(self, messages: Sequence[Message], tools: list[Any] | None, train_on: Sequence[float] | None) -> RenderedChat:
        text = self._apply(messages, tools)
        spans, weights = [], []
        for position, message in enumerate(messages):
            if message["role"] != "assistant" or (train_on is not None and not train_on[position]):
                continue
            before = self._apply(messages[:position], tools, add_generation_prompt=True)
            through = self._apply(messages[: position + 1], tools)
            if text.startswith(through) and through.startswith(before):
                spans.append((len(before), self._end_of_turn(through, len(before))))
                weights.append(1.0 if train_on is None else float(train_on[position]))
        if not spans and any(m["role"] == "assistant" for m in messages) and (train_on is None or any(train_on)):
            raise TemplateError(
                "the chat template gives no way to tell which tokens are the assistant's",
                why="it has no generation spans, and the text before a turn is not a prefix of the text with it",
                fix="use a tokenizer whose chat template marks {% generation %} spans",
            )
        return RenderedChat.of(text, spans, weights)

    def _end_of_turn(self, text: str, begin: int) -> int:
        """Trained text ends with the end-of-turn token; line breaks the template puts after it are not trained on."""
        end = len(text)
        while end > begin and text[end - 1] in "\r\n":
            end -= 1
        return end if self._ends_with_special(text[begin:end]) else len(text)

    def _ends_with_special(self, text: str) -> bool:
        return any(text.endswith(token) for token in self.tokenizer.all_special_tokens)


def _refused(messages: Sequence[Message], error: Exception) -> TemplateError:
    roles = " ".join(str(m.get("role")) for m in messages)
    return TemplateError(
        f"the chat template refuses a conversation with roles: {roles}",
        why=str(error) or type(error).__name__,
        fix="check the order of roles in the data, or use a model whose template accepts them",
    )
