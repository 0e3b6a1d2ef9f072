"""The catalogue of base models: what each is, whether a usual run fits, and that no folder can make it fail."""

import os
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from danlu.models.memory import fit
from danlu.models.shape import ModelShape
from danlu.services.base_models import base_model_facts, usual_run
from danlu.services.forecasts import Device
from danlu.services.platform import models
from danlu.services.platform.access import Actor
from danlu.services.platform.platform import Platform

SIZES: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}


def folder_of(platform: Platform, name: str, config: bytes) -> Path:
    folder = platform.home / "models" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(config)
    return folder


def test_a_base_model_tells_its_licence_its_size_and_whether_a_usual_run_fits(platform: Platform, small_model: Path) -> None:
    shutil.copytree(small_model, platform.home / "models" / "mine")
    (platform.home / "models" / "mine" / "README.md").write_text("---\nlicense: mit\n---\n", "utf-8")
    huge = folder_of(platform, "huge", orjson.dumps(SIZES | {"hidden_size": 65536, "intermediate_size": 262144, "num_hidden_layers": 256}))

    found = {choice.name: choice for choice in models.list_base_models(platform, Actor.local())}

    tiny, mine, too_big = found["danlu/tiny"], found["local/mine"], found["local/huge"]
    assert (tiny.licence, tiny.num_parameters, tiny.is_embedded) == ("apache-2.0", 6_180_864, True)
    assert mine.licence == "mit" and mine.size_bytes > 0 and mine.problem is None
    assert mine.available_bytes and mine.needed_bytes and mine.fit == fit(mine.needed_bytes, mine.available_bytes)
    assert too_big.fit == "too_big" and too_big.licence is None and too_big.alternative is None
    (huge / "config.json").write_bytes(b"{}")
    os.utime(huge / "config.json", ns=(1, 1))
    assert base_model_facts(huge).num_parameters is None  # what was read is read again when the file is another


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[]",
        b"{}",
        b'{"text_config": "no"}',
        b'{"auto_map": {"AutoModel": "evil.Model"}, "hidden_size": 8}',
        *(
            orjson.dumps(SIZES | change)
            for change in (
                {"num_hidden_layers": 10**9},
                {"hidden_size": "wide"},
                {"hidden_size": [8, "wide"]},
                {"vocab_size": -1},
                {"attention_dropout": "much"},
                {"num_attention_heads": None},
            )
        ),
    ],
)
def test_a_strange_config_costs_its_own_model_the_forecast_and_no_other(platform: Platform, config: bytes) -> None:
    folder_of(platform, "strange", config)

    tiny, strange = models.list_base_models(platform, Actor.local())

    assert tiny.fit is not None and (strange.fit, strange.num_parameters, strange.needed_bytes) == (None, None, None)
    assert strange.problem is not None and strange.problem.code.startswith("DL4") and str(platform.home) not in str(strange.problem)


def test_weights_that_link_to_nowhere_are_told(platform: Platform) -> None:
    folder = folder_of(platform, "linked", orjson.dumps(SIZES))
    (folder / "model.safetensors").symlink_to(platform.home / "gone")

    linked = models.list_base_models(platform, Actor.local())[1]

    assert linked.fit is None and linked.problem is not None and "local/linked" in linked.problem.what


def test_where_plain_lora_is_too_big_a_milder_change_is_told_only_if_it_fits() -> None:
    shape = ModelShape.from_config(SIZES | {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32})
    needed = usual_run(shape, Device("cpu", 1 << 40))[0].memory.peak_bytes

    assert usual_run(shape, Device("cpu", 1 << 40))[0].fit == "fits" and usual_run(shape, Device("cpu", 1 << 40))[1] is None
    assert usual_run(shape, Device("cpu", needed))[0].fit == "tight"
    small, alternative = usual_run(shape, Device("cpu", needed // 2))
    assert small.fit == "too_big"
    assert alternative is None or (alternative.changes["method"]["type"] == "qlora" and alternative.peak_bytes <= needed // 2)
    assert usual_run(shape, Device("cpu", 1 << 30))[1] is None
