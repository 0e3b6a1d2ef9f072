"""The studio's small pure parts: differences of texts, fields out of the schema, numbers, secrets."""

import pytest

from danlu.recipe.recipe import Recipe
from danlu.recipe.sweep import parse_range
from danlu.web import numbers
from danlu.web.components.messages import redacted
from danlu.web.schema_fields import changes_to, fields_of, value_at, with_changes, with_value
from danlu.web.text_diff import compared
from danlu.web.typed_values import range_of, text_of, values_of


def test_a_difference_shows_what_only_one_text_says() -> None:
    assert compared("the red door", "the blue door") == [("same", "the "), ("old", "red"), ("new", "blue"), ("same", " door")]
    assert compared("\u95e8\u662f\u7ea2\u8272", "\u95e8\u662f\u84dd\u8272") == [
        ("same", "\u95e8\u662f"),
        ("old", "\u7ea2"),
        ("new", "\u84dd"),
        ("same", "\u8272"),
    ]
    assert compared("", "") == []


@pytest.mark.parametrize("old", ["", "a b c", "\u95e8, red!"])
@pytest.mark.parametrize("new", ["", "c b a", "\u95e8. red"])
def test_the_pieces_of_a_difference_make_up_both_texts(old: str, new: str) -> None:
    pieces = compared(old, new)

    assert "".join(text for kind, text in pieces if kind != "new") == old
    assert "".join(text for kind, text in pieces if kind != "old") == new


def test_the_form_has_a_field_for_every_setting_of_the_chosen_method() -> None:
    lora = {field.path: field for field in fields_of({"method": {"type": "lora"}})}
    full = {field.path for field in fields_of({"method": {"type": "full"}})}

    assert (lora["method.rank"].kind, lora["method.type"].kind, lora["training.keep_best"].kind, lora["optim.learning_rate"].options) == (
        "number",
        "choice",
        "switch",
        ("auto",),
    )
    assert "method.rank" not in full and "optim.learning_rate" in full


def test_a_value_is_put_at_its_path_without_changing_the_original() -> None:
    values = {"method": {"type": "lora", "rank": 8}}

    assert with_value(values, "method.rank", 16) == {"method": {"type": "lora", "rank": 16}}
    assert with_value({"method": "lora"}, "method.rank", 16) == {"method": {"type": "lora", "rank": 16}}
    assert value_at(values, "method.rank") == 8 and value_at(values, "optim.seed", 0) == 0


def test_a_copied_recipe_is_what_is_recommended_with_its_changes() -> None:
    base = Recipe.model_validate({"base_model": "b", "dataset": "d", "method": {"type": "lora", "rank": 8}, "data": {"mix": {"x": 0.1}}}).to_dict()
    copy = Recipe.model_validate({"base_model": "b", "dataset": "d", "method": {"type": "lora", "rank": 16}, "optim": {"max_steps": 5}}).to_dict()
    base["optim"]["num_epochs"], base["optim"]["learning_rate"] = 3.0, 1e-4

    changes = changes_to(base, copy)

    assert changes == {"method.rank": 16, "optim.num_epochs": "auto", "optim.max_steps": 5, "data.mix": {}}
    assert Recipe.model_validate(with_changes(base, changes)).optim.max_steps == 5


def test_a_recipe_of_another_method_takes_nothing_from_the_recommended_one() -> None:
    base = Recipe.model_validate({"base_model": "b", "dataset": "d", "method": {"type": "lora", "rank": 8, "alpha": 64}}).to_dict()
    copy = Recipe.model_validate({"base_model": "b", "dataset": "d", "method": {"type": "qlora", "rank": 8}}).to_dict()

    changes = changes_to(base, copy)

    assert changes == {"method.type": "qlora", "method.rank": 8}
    assert with_changes(base, changes)["method"] == {"type": "qlora", "rank": 8}


def test_values_to_try_are_read_as_people_type_them() -> None:
    assert values_of("1e-4, 3e-4\uff0c8\u3001cosine, true,") == [1e-4, 3e-4, 8, "cosine", True]
    assert values_of(text_of([6e-05, 4, "cosine", False, None])) == [6e-05, 4, "cosine", False, None]
    assert values_of("2020-99-99, 1:30, [") == ["2020-99-99", "1:30", "["], "no dates, no times: nothing that people do not mean"
    assert values_of(" ") == []


def test_any_setting_can_be_searched_where_nothing_is_suggested() -> None:
    recipe = Recipe.model_validate({"base_model": "danlu/tiny", "dataset": "d", "optim": {"weight_decay": 0.0}}).to_dict()

    found = {item.path: range_of(item, value_at(recipe, item.path)) for item in fields_of(recipe)}

    assert found["optim.max_grad_norm"] == "0.5..2" and "cosine|" in found["optim.scheduler"]
    for path, text in found.items():
        if text:
            parse_range(path, text)


@pytest.mark.parametrize(("number", "text"), [(None, "\u2013"), (0.0, "0"), (0.0025, "0.0025"), (1e-05, "1e-5"), (1234.5, "1,234"), (2.5e9, "2.5e9")])
def test_a_number_is_short(number: float | None, text: str) -> None:
    assert numbers.short(number) == text


@pytest.mark.parametrize("secret", ["dl_abcdefgh12345678", "hf_abcdefghijkl", "Bearer abc.def", "postgresql://user:pass@host/db"])
def test_diagnostics_hold_no_secret(secret: str) -> None:
    assert redacted(f"it failed with {secret} at last").count("***") == 1
    assert "pass@" not in redacted(secret)
