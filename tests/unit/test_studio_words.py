"""The studio's texts: both languages, every key that is used, none that is not."""

import ast
import re
from pathlib import Path

from danlu.recipe.base import METHODS, OBJECTIVES
from danlu.web.schema_fields import fields_of
from danlu.web.words import CATALOGUE
from danlu.web.words.recipe import help_zh

HAN = re.compile("[\u4e00-\u9fff]")
NAMES = re.compile(r"Danlu|LoRA|JSON|YAML|HTML|PNG|CSV|p")
"""What stays as it is in Chinese when it is the whole text."""


def used_keys(folder: Path) -> tuple[set[str], set[str]]:
    """(keys, beginnings of keys that are put together) in every `t("...")` and `title="..."` of the pages."""
    keys, families = set(), set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[a-z_]+\.[a-z][\w-]*", node.value):
                keys.add(node.value)
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant) and re.match(r"[a-z_]+\.\w*$", str(node.values[0].value)):
                families.add(str(node.values[0].value))
    return keys, families


def problem(english: str, chinese: str) -> str | None:
    """What is wrong with a pair of texts."""
    if not (english.strip() and chinese.strip()):
        return "one is empty"
    if HAN.search(english):
        return "the English holds Chinese"
    if not HAN.search(chinese) and not NAMES.fullmatch(re.sub(r"\{\w+\}|[\W_]", "", chinese) or "p"):
        return "the Chinese is none"
    if sorted(re.findall(r"\{(\w+)\}", english)) != sorted(re.findall(r"\{(\w+)\}", chinese)):
        return "their places differ"
    return None


def test_every_text_stands_in_both_languages_with_the_same_places() -> None:
    assert len(CATALOGUE) > 300
    assert {key: found for key, label in CATALOGUE.items() if (found := problem(*label))} == {}


def test_every_key_that_a_page_uses_is_told_and_no_other(repository: Path) -> None:
    keys, families = used_keys(repository / "src/danlu/web")
    modules = {key.partition(".")[0] for key in CATALOGUE}
    wanted = {key for key in keys - families if key.partition(".")[0] in modules and not key.endswith((".py", ".css", ".js", ".svg"))}
    recipe_paths = {field.path for field in fields_of({})}

    assert {key for key in wanted if key not in CATALOGUE and key not in recipe_paths} == set()
    assert {family for family in families if family.partition(".")[0] in modules and not any(key.startswith(family) for key in CATALOGUE)} == set()
    assert {key for key in CATALOGUE if key not in keys and not any(key.startswith(family) and family in key for family in families)} == set()


def test_the_form_has_help_in_chinese_on_every_setting_of_every_method_and_objective() -> None:
    recipes = [{"method": {"type": name}} for name in METHODS] + [{"objective": {"type": name}, "data": {"format": {"type": "alpaca"}}} for name in OBJECTIVES]
    fields = [field for recipe in recipes for field in fields_of(recipe)]

    assert sorted({field.path for field in fields if not HAN.search(help_zh(field.path, field.variant))}) == []
    assert [field.path for field in fields if not field.help] == []
    assert {field.variant for field in fields} >= {"lora", "freeze", "grpo", "alpaca", ""}
