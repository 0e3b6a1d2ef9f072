"""Starting a run."""

import pytest

from danlu.errors import DataError, UnknownNameError
from danlu.recipe.load import load_recipe
from danlu.services import runs


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"base_model": "danlu/tiny", "dataset": "nothere.jsonl"}, DataError),
        ({"base_model": "danlu/tinny", "dataset": "danlu/support-en"}, UnknownNameError),
        ({"base_model": "danlu/tiny", "dataset": "danlu/support-en", "data": {"mix": {"nothere": 0.1}}}, DataError),
        ({"base_model": "danlu/tiny", "dataset": "danlu/support-en", "data": {"split": {"test_dataset": "nothere.jsonl"}}}, DataError),
    ],
)
def test_a_name_that_does_not_exist_leaves_no_run_behind(values: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        runs.run(load_recipe(values=values))

    assert runs.list_runs() == []
