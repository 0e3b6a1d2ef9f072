"""One number says how much memory a run could take: the same in the preview of a run, on the badges of models and in the settings."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from danlu.recipe.recipe import Recipe
from danlu.services.forecasts import free_device
from danlu.services.platform import models, projects, recipes
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.recipes import Preview
from danlu.web.numbers import size
from danlu.worker.preview import MAX_MEMORY_BYTES

OWNER = Actor.local()
RECIPE = {"base_model": "danlu/tiny", "dataset": "danlu/product-json"}


def test_what_the_previews_own_process_may_take_is_not_told_as_what_a_run_can() -> None:
    memory = 3 * MAX_MEMORY_BYTES
    question = {"recipe": Recipe.model_validate(RECIPE).to_dict(), "paths": {}, "goal": None, "price_per_hour": None, "memory_bytes": memory}

    done = subprocess.run([sys.executable, "-m", "danlu.worker.preview"], input=json.dumps(question).encode(), capture_output=True, check=True)

    told = json.loads(done.stdout)
    assert told["forecast"]["available_bytes"] == told["device"]["available_bytes"] == memory


def test_the_preview_the_badges_and_the_settings_tell_one_number(platform: Platform) -> None:
    project = projects.create_project(platform, OWNER, NewProject(name="p")).id
    for _ in range(5):  # what is free changes every few seconds: asked within the same ones, all say the same
        told = {free_device().available_bytes, models.list_base_models(platform, OWNER)[0].available_bytes}
        preview = recipes.preview_run(platform, OWNER, project, Preview(recipe=RECIPE))
        assert preview.forecast is not None
        told.add(preview.forecast["available_bytes"])
        if len(told) == 1:
            break
    assert len(told) == 1


def test_what_does_not_fit_is_told_in_the_words_of_the_card(platform: Platform, small_model: Path) -> None:
    project = projects.create_project(platform, OWNER, NewProject(name="p")).id
    folder = shutil.copytree(small_model, platform.home / "models" / "huge")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 65536, "intermediate_size": 262144, "num_hidden_layers": 256}), "utf-8")

    preview = recipes.preview_run(platform, OWNER, project, Preview(recipe=RECIPE | {"base_model": "local/huge"}))

    assert preview.forecast is not None and preview.recipe is not None  # the page lets it be started: memory may be free by then
    (problem,) = [one for one in preview.problems if one.code == "DL501"]
    assert problem.why == f"it needs {size(preview.forecast['memory']['peak_bytes'])}, and {size(preview.forecast['available_bytes'])} are free".replace(
        "\u00a0", " "
    )
