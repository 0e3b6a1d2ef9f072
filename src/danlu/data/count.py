"""Token counts of examples without torch or Transformers: the tokenizer's own file and chat template, nothing else.

For a forecast, not for training: what is trained on is told by the renderer (chat.py). The counts agree with it to a few tokens an example.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson

TURN_TOKENS = 4
"""What a template puts around a turn, where the template itself cannot be rendered here."""
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")


class TokenCounter:
    """Counts with the tokenizer of one model folder, which has to hold tokenizer.json."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        path = folder / "tokenizer_config.json"
        self._config: dict[str, Any] = orjson.loads(path.read_bytes()) if path.is_file() else {}
        own = folder / "chat_template.jinja"
        self._template = self._compiled(own.read_text("utf-8") if own.is_file() else self._config.get("chat_template"))

    def __call__(self, example: dict[str, Any]) -> tuple[int, int]:
        """(tokens, trained tokens) of a clean example of any kind; of a pair, both sequences together."""
        if "text" in example:
            count = self.count(example["text"]) + 1
            return count, count - 1
        if "chosen" in example:
            sides = [self._conversation([*(example.get("messages") or []), *example[side]]) for side in ("chosen", "rejected")]
            return sides[0][0] + sides[1][0], sides[0][1] + sides[1][1]
        return self._conversation(example["messages"])

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _conversation(self, messages: list[dict[str, Any]]) -> tuple[int, int]:
        answers = [str(m.get("content") or "") for m in messages if m["role"] == "assistant"]
        labels = sum(self.count(answer) + 1 for answer in answers)
        text = self._render(messages)
        if text is not None:
            return self.count(text), labels
        return sum(self.count(str(m.get("content") or "")) + TURN_TOKENS for m in messages), labels

    def _compiled(self, template: Any) -> Any:
        if not isinstance(template, str):
            return None
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        try:
            return environment.from_string(_GENERATION.sub("", template))
        except TemplateError:
            return None

    def _render(self, messages: list[dict[str, Any]]) -> str | None:
        if self._template is None:
            return None
        from jinja2 import TemplateError

        special = {name: _content(self._config.get(name)) for name in ("bos_token", "eos_token", "pad_token")}
        try:
            return str(self._template.render(messages=messages, add_generation_prompt=False, tools=None, **special))
        except (TemplateError, TypeError, ValueError):  # it wants functions that only Transformers gives it
            return None


def _content(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
