"""Contract of the Chinese: every code has its words, nearly every sentence of an error too, and the values of a sentence stand in both."""

import ast
import inspect
import re
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from danlu import errors
from danlu.errors import DanluError, DataError, NoEffectError, RecipeError, StorageError, chinese
from danlu.errors.chinese.codes import CODES
from danlu.recipe import base
from danlu.recipe.load import validate
from danlu.recipe.recipe import Recipe
from danlu.web.words.recipe import HELP_ZH, help_zh

PACKAGE = Path(errors.__file__).parents[1]
CLASSES = [cls for cls in vars(errors).values() if inspect.isclass(cls) and issubclass(cls, DanluError)]
SENTENCES = [pair for table in chinese.TABLES for pair in table]
HAN = re.compile("[\u4e00-\u9fff]")
KNOWN_SHARE = 0.97
"""A sentence without Chinese is told by the words of its code; new ones are to get their own."""
CHOSEN = {"METHODS": "method", "OBJECTIVES": "objective", "REWARDS": "objective.rewards", "SUITES": "evaluation.suites", "FORMATS": "data.format"}
"""Where a recipe holds what a registry has."""


def test_every_code_has_its_words_in_chinese_and_no_other_has() -> None:
    assert sorted(CODES) == sorted({cls.code for cls in CLASSES})
    assert [code for code, words in CODES.items() if not all(map(chinese.is_chinese, words))] == []


def places(text: str) -> list[str]:
    return re.findall(r"\{\d*\}", text)


@pytest.mark.parametrize("table", chinese.TABLES, ids=lambda table: table[0][0][:20])
def test_a_sentence_has_the_same_values_in_both_languages(table: tuple[tuple[str, str], ...]) -> None:
    wrong = []
    for english, translated in table:
        there, numbered = places(translated), {f"{{{number}}}" for number in range(english.count("{}"))}
        if set(there) != numbered and there != ["{}"] * len(numbered):
            wrong.append((english, translated))
    assert wrong == []


def test_no_sentence_is_told_in_two_ways() -> None:
    told: dict[str, set[str]] = {}
    for english, translated in SENTENCES:
        told.setdefault(english, set()).add(translated)

    assert {english: sorted(both) for english, both in told.items() if len(both) > 1} == {}


def texts(node: ast.expr) -> Iterator[str]:
    """Every text that an expression of constants can make, with `{}` for what is known only when it runs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from map("".join, product(texts(node.left), texts(node.right)))
    else:
        yield "{}"


def sentences_of_errors() -> Iterator[tuple[str, str]]:
    """(module, sentence) of what, why and fix of every error that is made, and of every ValueError of a setting."""
    names = {cls.__name__ for cls in CLASSES}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = str(path.relative_to(PACKAGE))
        is_about_settings = module.startswith(("recipe/", "training/methods/", "training/objectives/", "data/rewards/"))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in names or (node.func.id == "ValueError" and is_about_settings):
                parts = node.args[:1] + [keyword.value for keyword in node.keywords if keyword.arg in ("why", "fix")]
                yield from ((module, text) for part in parts for text in texts(part) if re.search("[a-z]{3}", text.replace("{}", "")))


def test_nearly_every_sentence_of_an_error_is_known_in_chinese() -> None:
    found = sorted(set(sentences_of_errors()))
    unknown = [sentence for sentence in found if not HAN.search(chinese.in_chinese(sentence[1].replace("{}", "7")))]

    assert len(found) > 800
    assert len(unknown) <= (1 - KNOWN_SHARE) * len(found), "\n".join(f"{module}: {sentence}" for module, sentence in unknown)


def test_values_stand_in_the_chinese_and_known_words_among_them_are_translated() -> None:
    told = chinese.told(NoEffectError("run r1 has not finished", why="it is running", fix="wait for it, or resume it"))

    assert told == chinese.Told("这个设置不起作用", "训练 r1 还没有完成", "它的状态是：进行中", "等它完成，或继续它")
    assert chinese.in_chinese("1.5 MB are free at /data, of which 2.0 MB are kept free") == "/data 剩余 1.5 MB，其中 2.0 MB 必须保留"


def test_a_sentence_that_nobody_knows_is_told_by_its_code() -> None:
    told = chinese.told(StorageError("the disk sings", why="Input/output error", fix="listen"))

    assert told == chinese.Told(*(CODES["DL700"][place] for place in (0, 0, 1, 2)))
    assert chinese.in_chinese("the disk sings") == "the disk sings"


def test_what_is_chinese_already_stays_and_a_chinese_name_does_not_make_a_sentence_so() -> None:
    told = chinese.told(DataError("\u65c5\u884c.jsonl is empty", why="\u6587\u4ef6\u592a\u77ed", fix="ask \u674e\u5973\u58eb for another one"))

    assert told == chinese.Told(CODES["DL200"].title, "\u65c5\u884c.jsonl \u662f\u7a7a\u7684", "\u6587\u4ef6\u592a\u77ed", CODES["DL200"].fix)


def test_a_sentence_within_a_sentence_is_translated_too() -> None:
    error = DataError("f.csv:3: no row of the file can be read", why="its gzip stream cannot be unpacked: not CSV", fix="give a data file")

    assert chinese.in_chinese("Value error, a name has 1 to 100 characters; this one has 0") == "名称应为 1 到 100 个字符，这个有 0 个"
    assert chinese.told(error, also=str.lower) == chinese.Told(CODES["DL200"].title, "f.csv:3：没有一行能读取", "gzip 内容无法解压：not csv", "给出数据文件")


@pytest.mark.parametrize("value", ["a" * 1900, " asks for " * 180, "has: " * 350, "; why: installed: " * 100, "a b\n" * 50_000, "is " * 50_000])
def test_looking_for_a_sentence_takes_no_time_whatever_stands_in_it(value: str) -> None:
    begun = time.process_time()
    chinese.in_chinese(f"unknown {value} asks for {value}")
    chinese.in_chinese(value)

    assert time.process_time() - begun < 1.0


BAD = [
    {"optim": {"learning_rate": -1}},
    {"optim": {"learning_rate": 5.0}},
    {"optim": {"learning_rat": 1e-4}},
    {"optim": {"scheduler": "sinus", "warmup_ratio": 7, "max_grad_norm": "much"}},
    {"optim": {"num_epochs": 2.0, "max_steps": 5}},
    {"optim": {"max_steps": 2.5, "weight_decay": [1]}},
    {"method": {"type": "lora", "rank": 0}},
    {"method": {"type": "lorra"}},
    {"method": {"type": "lora", "layers": [], "use_dora": "perhaps"}},
    {"objective": {"type": "dpo", "label_smoothing": 0.7}},
    {"objective": {"type": "grpo", "rewards": []}},
    {"data": {"split": {"validation": 0.9, "test": 0.9}, "mix": {"general": 90}}},
    {"data": {"system": "", "new_tokens": ["a", "a"]}, "seed": "x", "export": "everything"},
    {"base_model": None, "training": 3},
]


@pytest.mark.parametrize("values", BAD, ids=lambda values: str(values)[:40])
def test_mistakes_in_a_recipe_are_told_in_chinese_with_place_and_value(values: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as caught:
        validate({"base_model": "danlu/tiny", "dataset": "rows.jsonl"} | values, source="recipe")

    first, *lines = chinese.told(caught.value).what.splitlines()
    assert chinese.is_chinese(first) and lines
    for line, english in zip(lines, caught.value.what.splitlines()[1:], strict=True):
        assert HAN.search(line), english
        assert line.strip().startswith(english.strip().split(":")[0])
        assert re.findall(r"[A-Za-z]{2,} [A-Za-z]{2,} [A-Za-z]{2,}", line) == [], line


def settings_of(model: type[BaseModel], path: str) -> Iterator[tuple[str, str]]:
    """(path, English help) of every setting of a class and of the parts in it."""
    for name, field in model.model_fields.items():
        is_part = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        if is_part and not any(entry in vars(base).values() for entry in field.metadata):
            yield from settings_of(field.annotation, f"{path}{name}.")  # type: ignore[arg-type]  # a class, see above
        elif name not in ("type", "schema_version", "base_model", "dataset"):
            yield f"{path}{name}", field.description or ""


def test_every_setting_of_a_recipe_has_help_in_chinese() -> None:
    assert [path for path, _ in settings_of(Recipe, "") if not help_zh(path)] == []


def test_every_setting_of_what_a_recipe_can_name_has_help_in_chinese_and_different_ones_differ() -> None:
    missing: list[str] = []
    english_of: dict[tuple[str, str], set[str]] = {}
    for registry_name, place in CHOSEN.items():
        registry = getattr(base, registry_name)
        for name in registry:
            if registry[name].__module__.startswith("danlu."):
                for path, english in settings_of(registry[name], f"{place}."):
                    found = help_zh(path, name)
                    missing += [f"{name}: {path}"] if not found else []
                    english_of.setdefault((path, found), set()).add(english)

    assert missing == []
    same = [path for (path, _), told in english_of.items() if len(told) > 1]
    assert set(same) <= {"method.num_virtual_tokens", "objective.beta"}


def test_no_help_is_left_of_a_setting_that_is_gone() -> None:
    known = {path for path, _ in settings_of(Recipe, "")} | {"data.replay.run", "data.replay.share"}
    for registry_name, place in CHOSEN.items():
        registry = getattr(base, registry_name)
        for name in registry:
            paths = [path for path, _ in settings_of(registry[name], f"{place}.")]
            known |= set(paths) | {f"{place}.{name}.{path.rpartition('.')[2]}" for path in paths}

    assert sorted(set(HELP_ZH) - known) == []
