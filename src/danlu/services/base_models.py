"""Use case: what a base model on this machine is, and whether a usual run with it fits here. By the one formula; without torch.

Only small files are read (config.json, the model card), and what they say is kept until one of them changes. A folder with which
nothing can be done is answered too, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from danlu.errors import DanluError, ModelError
from danlu.models.catalogue import find_base_model
from danlu.models.forecast import Alternative, Forecast, Lengths, forecast
from danlu.models.load import check_model_dir
from danlu.models.shape import ModelShape
from danlu.recipe.recipe import Recipe
from danlu.recipe.recommend import recommend_all
from danlu.services.forecasts import Device, facts_of, free_device

USUAL_EXAMPLES, USUAL_TOKENS = 1000, 512
"""The usual run: LoRA as it is recommended for that many conversations, each that long with half of it answers (docs/forecast.md)."""
MAX_LAYERS = 512
"""No language model has so many; the formula goes through them one by one."""
MAX_LICENCE = 60
"""Characters; the model card is somebody's text."""


@dataclass(frozen=True)
class BaseModelFacts:
    """What is known of a base model; what its files do not tell is None."""

    size_bytes: int
    """Of its weights."""
    licence: str | None
    num_parameters: int | None
    usual: Forecast | None
    """Of the usual run; None where the sizes are not known."""
    alternative: Alternative | None
    """The mildest change with which the usual run would fit, where it is too big."""
    error: DanluError | None
    """Why there is no forecast."""


def base_model_facts(folder: Path) -> BaseModelFacts:
    """What the base model in `folder` is, and whether the usual run fits on this machine now."""
    try:
        stamps = tuple((path.name, path.stat().st_mtime_ns) for path in (folder, folder / "config.json", folder / "README.md") if path.exists())
        size_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        licence, shape, error = _look(folder, stamps)
    except OSError as problem:
        error = ModelError(f"{folder} cannot be read", why=str(problem), fix="check the rights of its files, and where its links lead")
        return BaseModelFacts(0, None, None, None, None, error)
    if shape is None:
        return BaseModelFacts(size_bytes, licence, None, None, None, error)
    usual, alternative = usual_run(shape, free_device())
    return BaseModelFacts(size_bytes, licence, shape.num_parameters, usual, alternative, None)


@lru_cache(maxsize=256)
def _look(folder: Path, stamps: tuple[tuple[str, int], ...]) -> tuple[str | None, ModelShape | None, DanluError | None]:
    """Licence and sizes; why there are no sizes. `stamps` say when the files were written."""
    licence = find_base_model(str(folder), needs_weights=False).licence
    licence = licence[:MAX_LICENCE] if licence else None
    try:
        shape = ModelShape.from_config(check_model_dir(folder, needs_weights=False))
        if shape.layers > MAX_LAYERS:
            raise ModelError(f"config.json: {shape.layers} layers", why=f"at most {MAX_LAYERS} are looked at", fix="copy the model's config.json again")
    except DanluError as error:
        return licence, None, error
    return licence, shape, None


@lru_cache(maxsize=256)
def usual_run(shape: ModelShape, place: Device) -> tuple[Forecast, Alternative | None]:
    """Forecast the usual run with a model of these sizes; where it is too big, with the mildest change that makes it fit, if one does."""
    longest = min(USUAL_TOKENS, shape.max_positions or USUAL_TOKENS)
    lengths = Lengths([longest] * USUAL_EXAMPLES, [longest // 2] * USUAL_EXAMPLES, USUAL_EXAMPLES)
    written = Recipe.model_validate({"base_model": "usual", "dataset": "usual"})
    facts = facts_of(written, shape, lengths, written.data.format, place)
    recipe, _ = recommend_all(written, replace(facts, can_quantise=False))
    usual = forecast(shape, recipe, lengths, available_bytes=place.available_bytes, device=place.kind)
    return usual, next(iter(usual.alternatives), None) if usual.fit == "too_big" else None
