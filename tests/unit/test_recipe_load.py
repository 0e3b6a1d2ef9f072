"""Recipes from files and overrides: what is accepted, and how every mistake is told."""

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal

import pytest

from danlu import plugins
from danlu.errors import DanluError, RecipeError
from danlu.plugins import Registry
from danlu.recipe.base import METHODS, MethodConfig
from danlu.recipe.load import load_recipe, parse_override
from danlu.recipe.recipe import Recipe

NEEDED = {"dataset": "rows.jsonl", "base_model": "danlu/tiny"}
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    numbers: Iterator[int] = iter(range(100))

    def write_recipe(text: str | bytes) -> Path:
        path = tmp_path / f"recipe{next(numbers)}.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write_recipe


def refused(file: Path) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load_recipe([file])
    return caught.value


def test_every_mistake_is_told_at_once_with_its_path_its_value_and_what_was_meant(write: Write) -> None:
    error = refused(
        write("""
dataset: rows.jsonl
sede: 1
optim: {learning_rate: fast, num_epochs: -1, warmup_ratio: 2, lerning_rate: 3}
method: {type: lora, rank: 0, rnk: 4}
data: {max_seq_len: many, mix: {general: 0}, split: {test: 2}}
evaluation: {suites: [heldout, retain]}
export: [merge]
""")
    )

    lines = error.what.splitlines()
    assert "13 mistakes" in lines[0] and "recipe0.yaml" in lines[0]
    found = dict(line.strip().split(": ", 1) for line in lines[1:])
    assert found.keys() == {
        "base_model", "sede", "optim.learning_rate", "optim.num_epochs", "optim.warmup_ratio", "optim.lerning_rate", "method.rank", "method.rnk",
        "data.max_seq_len", "data.mix", "data.split.test", "evaluation.suites.1", "export.0",
    }  # fmt: skip
    assert found["base_model"] == "missing"
    assert found["sede"] == "there is no such setting; did you mean 'seed'? (given: 1)"
    assert found["optim.lerning_rate"] == "there is no such setting; did you mean 'learning_rate'? (given: 3)"
    assert found["method.rnk"] == "there is no such setting; did you mean 'rank'? (given: 4)"
    assert found["optim.learning_rate"].endswith("(given: 'fast')")
    assert found["method.rank"].endswith("(given: 0)")
    assert found["data.mix"].startswith("mix.general: 0.0 is not a share")
    assert "installed: adapter, merged; fix: use 'merged'" in found["export.0"]
    assert "installed: heldout, preference, retention" in found["evaluation.suites.1"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("seed: 1\nseed: 2\n", "the key 'seed' is given twice"),
        ("optim:\n  max_steps: 3\n  max_steps: 3\n", "the key 'max_steps' is given twice"),
        ("a: &x 1\nb: *x\n", "anchors and aliases are not allowed"),
        ("dataset: !!python/object/apply:os.system [ls]\n", "python/object/apply"),
        ("dataset: !!python/name:os.system\n", "python/name"),
        ("? [a, b]\n: 1\n", "cannot be the name of a setting"),
        ("dataset: 2024-13-45\n", "month must be in 1..12"),
        ("dataset: 'rows\n", "found unexpected end of stream"),
        ("dataset: a\x00b\n", "special characters are not allowed"),
        (b"dataset: \xff\xfe\xfa\n", "invalid start byte"),
        ("seed: " + "[" * 5000 + "]" * 5000, "a recipe has three levels"),
        ("", "its top level is NoneType"),
        ("- 1\n- 2\n", "its top level is list"),
        ("x" * 1_000_001, "is this a data file?"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_file_that_is_no_recipe_is_refused_with_its_reason(write: Write, text: str, why: str) -> None:
    error = refused(write(text))

    assert why in error.why
    assert "recipe0.yaml" in error.what


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    assert "is a folder" in refused(tmp_path).what
    assert refused(tmp_path / "none.yaml").why == "No such file or directory"


@pytest.mark.parametrize(
    "text", ["optim: 3", "method: 3", "method: {type: [lora]}", "method: {type: 3}", "data: {mix: [a]}", "optim: {1: 2}", "export: adapter", "dataset: ''"]
)
def test_values_of_the_wrong_kind_are_mistakes_and_never_a_crash(write: Write, text: str) -> None:
    assert "mistake" in refused(write(f"base_model: danlu/tiny\n{text}\n")).what


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "0", "-1e-3", "3"])
def test_learning_rates_that_cannot_work_are_refused(write: Write, value: str) -> None:
    assert "optim.learning_rate" in refused(write(f"dataset: a\nbase_model: b\noptim: {{learning_rate: {value}}}\n")).what


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optim": {"max_steps": 3, "num_epochs": 2}}, "num_epochs has no effect when max_steps is set"),
        ({"optim": {"optimizer": "muon"}}, "muon is for methods full and freeze"),
        ({"data": {"split": {"validation": 0.5, "test": 0.5}}}, "leave nothing to train on"),
        ({"objective": "pretrain", "data": {"system": "be kind"}}, "data.system has no effect"),
        ({"method": "dora"}, "unknown tuning method 'dora'"),
        ({"method": "prompt_tuning", "export": ["merged"]}, "export merged is not possible after method prompt_tuning"),
        ({"optim": {"scheduler": "cosine", "scheduler_power": 3}}, "set scheduler to polynomial"),
        ({"optim": {"optimizer": "adafactor", "beta1": 0.8}}, "have no effect with adafactor"),
        ({"training": {"best_by": "reward_accuracy"}}, "is not measured with objective sft; use loss, bleu, chrf"),
        ({"training": {"best_by": "rouge_l"}, "objective": "dpo"}, "use loss, reward_accuracy, reward_margin"),
        ({"training": {"best_by": "rouge_l"}, "data": {"split": {"validation": 0}}}, "best_by has no effect without a validation split"),
        ({"training": {"best_by": "chrf", "keep_best": False, "early_stopping_patience": None}}, "best_by has no effect when keep_best is false"),
        ({"data": {"new_tokens": ["<a>"]}, "method": "p_tuning"}, "data.new_tokens would not be learnt by method p_tuning"),
    ],
)
def test_combinations_that_do_nothing_or_cannot_work_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(values=NEEDED | values)

    assert words in caught.value.what


def test_numbers_may_be_written_as_people_write_them(write: Write) -> None:
    recipe = load_recipe([write("dataset: a\nbase_model: b\noptim: {learning_rate: 1e-4, weight_decay: 1E-2, max_steps: '20'}\n")])

    assert (recipe.optim.learning_rate, recipe.optim.weight_decay, recipe.optim.max_steps) == (1e-4, 1e-2, 20)


def test_later_files_then_values_then_overrides_win(write: Write) -> None:
    files = [write("dataset: a\nbase_model: b\nseed: 1\noptim: {learning_rate: 0.1, beta1: 0.5}\n"), write("seed: 2\noptim: {learning_rate: 0.2}\n")]

    recipe = load_recipe(files, ["optim.learning_rate=3e-1", "--data.split.test=0.2"], {"seed": 3})

    assert (recipe.seed, recipe.optim.learning_rate, recipe.optim.beta1) == (3, 0.3, 0.5)
    assert (recipe.data.split.test, recipe.data.split.validation) == (0.2, 0.1)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["method.rank=8"], {"type": "lora", "rank": 8, "alpha": 4}),
        (["method=full"], {"type": "full", "init": "pretrained"}),
        (["method.type=full"], {"type": "full", "init": "pretrained"}),
        (["method={type: lora, dropout: 0.1}"], {"type": "lora", "rank": 2, "dropout": 0.1}),
        (["method=full", "method.init=random"], {"type": "full", "init": "random"}),
        (["method.target_modules=[q_proj, v_proj]"], {"target_modules": ["q_proj", "v_proj"]}),
    ],
)
def test_fields_of_a_type_go_when_the_type_goes(write: Write, overrides: list[str], expected: dict[str, Any]) -> None:
    recipe = load_recipe([write("dataset: a\nbase_model: b\nmethod: {type: lora, rank: 2, alpha: 4}\n")], overrides)

    assert expected.items() <= recipe.method.model_dump().items()


def test_a_part_of_the_default_method_can_be_set_without_naming_it() -> None:
    assert load_recipe(values=NEEDED, overrides=["method.rank=3"]).method.model_dump()["rank"] == 3


@pytest.mark.parametrize("text", ["no equals", "=3", "  =3", "seed=", "optim.max_steps= "])
def test_what_is_no_override_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="is not an override"):
        parse_override(text)


@pytest.mark.parametrize("text", ["seed=2024-13-45", "seed=" + "[" * 5000, "seed='1"])
def test_an_override_with_a_broken_value_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="the value of seed"):
        parse_override(text)


def test_the_fingerprint_is_stable_and_changes_with_every_setting() -> None:
    recipe = load_recipe(values=NEEDED)
    again = Recipe.model_validate(recipe.to_dict())
    changed = [
        load_recipe(values=NEEDED, overrides=[override])
        for override in (
            "seed=1",
            "method.rank=17",
            "optim.learning_rate=1e-4",
            "data.split.test=0.2",
            "export=[adapter]",
            "evaluation.metrics=[]",
            "method=full",
        )
    ]

    assert recipe.fingerprint == again.fingerprint == load_recipe(values=dict(reversed(NEEDED.items()))).fingerprint
    assert len({recipe.fingerprint, *(other.fingerprint for other in changed)}) == 8
    assert len(recipe.fingerprint) == 64


def accepts(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """The part of JSON Schema (2020-12) that pydantic writes, as a validator."""
    if "$ref" in schema:
        return accepts(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], value, root)
    if "anyOf" in schema and not any(accepts(branch, value, root) for branch in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(accepts(branch, value, root) for branch in schema["oneOf"]) != 1:
        return False
    if "const" in schema and value != schema["const"] or "enum" in schema and value not in schema["enum"]:
        return False
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": int | float, "boolean": bool, "null": type(None)}
    if "type" in schema and (not isinstance(value, kinds[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean")):
        return False
    if isinstance(value, str) and len(value) < schema.get("minLength", 0):
        return False
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, above, high, below = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"))
        if any(
            [low is not None and value < low, above is not None and value <= above, high is not None and value > high, below is not None and value >= below]
        ):
            return False
    if isinstance(value, list):
        return all(accepts(schema.get("items", {}), item, root) for item in value)
    if isinstance(value, dict):
        fields, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        if not set(schema.get("required", [])) <= value.keys():
            return False
        return all(accepts(fields[k], v, root) if k in fields else others is not False and accepts(others, v, root) for k, v in value.items())
    return True


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"method": "full"},
        {"method": {"type": "lora", "rank": 3, "target_modules": ["q_proj"]}, "objective": {"type": "sft"}},
        {"optim": {"learning_rate": 1e-3, "max_steps": 5}, "data": {"format": "alpaca", "mix": {"general": 0.1}, "max_seq_len": 64}},
        {"export": ["adapter", {"type": "merged"}], "evaluation": {"suites": [], "metrics": ["bleu"]}},
    ],
)
def test_the_json_schema_accepts_what_the_model_accepts(values: dict[str, Any]) -> None:
    schema, written = Recipe.model_json_schema(), NEEDED | values

    assert accepts(schema, written, schema)
    assert accepts(schema, Recipe.model_validate(written).to_dict(), schema)


@pytest.mark.parametrize(
    "values",
    [
        {"sede": 1},
        {"seed": -1},
        {"dataset": ""},
        {"method": "loraa"},
        {"method": {"type": "lora", "rank": 0}},
        {"method": {"type": "full", "rank": 3}},
        {"optim": {"warmup_ratio": 2}},
        {"data": {"max_seq_len": 3}},
        {"export": ["merge"]},
    ],
)
def test_the_json_schema_refuses_what_the_model_refuses(values: dict[str, Any]) -> None:
    schema = Recipe.model_json_schema()

    assert not accepts(schema, NEEDED | values, schema)
    with pytest.raises(DanluError):
        load_recipe(values=NEEDED | values)


class Elsewhere(MethodConfig):
    """A method of another package."""

    type: Literal["elsewhere"] = "elsewhere"
    strength: int = 1
    """How much of it."""


def test_a_plugin_of_another_package_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry[MethodConfig]("tuning method", package=METHODS.package)

    class Entry(EntryPoint):
        def load(self) -> Any:
            return registry.register(Elsewhere)

    asked = []

    def entry_points(*, group: str) -> list[EntryPoint]:
        asked.append(group)
        return [Entry("elsewhere", "somewhere:Elsewhere", group)]

    monkeypatch.setattr(plugins, "entry_points", entry_points)

    assert "elsewhere" in registry
    assert registry.parse({"type": "elsewhere", "strength": 3}).strength == 3
    assert asked == ["danlu.training.methods"]


@pytest.mark.parametrize("name", ["str", "int", "a[0]", "MethodConfig", ""])
def test_an_unknown_setting_may_be_called_anything(name: str) -> None:
    with pytest.raises(RecipeError, match="there is no such setting"):
        load_recipe(values={"base_model": "m", "dataset": "d", name: 1})
