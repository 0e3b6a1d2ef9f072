"""One number says how much memory a run could take: the same in the preview of a run, on the badges of models and in the settings."""

import json
import subprocess
import sys

from danlu.services.forecasts import DEVICE_SECONDS, free_device
from danlu.services.platform import models, projects, recipes
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import NewProject
from danlu.services.platform.recipes import Preview
from danlu.worker.preview import MAX_MEMORY_BYTES

OWNER = Actor.local()
RECIPE = {"base_model": "danlu/tiny", "dataset": "danlu/product-json"}


def test_what_the_previews_own_process_may_take_is_not_told_as_what_a_run_can() -> None:
    memory = 3 * MAX_MEMORY_BYTES
    question = {"recipe": RECIPE, "paths": {}, "goal": None, "price_per_hour": None, "memory_bytes": memory}

    done = subprocess.run([sys.executable, "-m", "danlu.worker.preview"], input=json.dumps(question).encode(), capture_output=True, check=True)

    told = json.loads(done.stdout)
    assert told["forecast"]["available_bytes"] == told["device"]["available_bytes"] == memory


def test_the_preview_the_badges_and_the_settings_tell_one_number(platform: Platform) -> None:
    project = projects.create_project(platform, OWNER, NewProject(name="p")).id
    for _ in range(20):  # what is free changes: asked within the same seconds, all say the same
        before = free_device()
        badge = models.list_base_models(platform, OWNER)[0].available_bytes
        preview = recipes.preview_run(platform, OWNER, project, Preview(recipe=RECIPE))
        if free_device() is before:
            break
    else:
        raise AssertionError(f"a preview took longer than {DEVICE_SECONDS} s twenty times")
    assert preview.forecast is not None
    assert preview.forecast["available_bytes"] == badge == before.available_bytes
