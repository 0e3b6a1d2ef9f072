"""What cannot work is refused with what, why and fix; nothing ends in a bare exception."""

import gzip
import json
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from danlu.errors import (
    DanluError,
    DataError,
    ModelError,
    NoEffectError,
    StorageError,
    TooFewExamplesError,
    UnknownNameError,
    UnsafeModelError,
)
from danlu.files import read_json
from danlu.recipe.load import load_recipe
from danlu.services.runs import run
from models import recipe_values


@pytest.fixture
def refused(tmp_path: Path, small_model: Path, rows_file: Path) -> Callable[..., DanluError]:
    """Start a run that has to be refused, and return the error."""
    numbers = count()

    def start(model: Path | str | None = None, dataset: Path | str | None = None, **values: Any) -> DanluError:
        written = recipe_values(model or small_model, dataset or rows_file, **values)  # type: ignore[arg-type]
        folder = tmp_path / f"run{next(numbers)}"
        with pytest.raises(DanluError) as caught:
            run(load_recipe(values=written), run_dir=folder)
        assert all([caught.value.what, caught.value.why, caught.value.fix])
        assert "Traceback" not in str(caught.value)
        return caught.value

    return start


@pytest.fixture
def model(tmp_path: Path, small_model: Path) -> Path:
    """A copy of the small model to damage."""
    return Path(shutil.copytree(small_model, tmp_path / "model"))


Refused = Callable[..., DanluError]


def test_a_dataset_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    error = refused(dataset="nothing.jsonl")

    assert isinstance(error, DataError) and "'nothing.jsonl'" in error.what and "danlu/zhangjiajie" in error.why
    assert read_json(tmp_path / "run0/run.json")["state"] == "failed"


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-that-name/rows.jsonl", "https://example.org/rows.jsonl"])
def test_names_that_are_no_paths(refused: Refused, name: str) -> None:
    assert isinstance(refused(dataset=name), DataError)


def test_a_folder_in_place_of_a_dataset(refused: Refused, tmp_path: Path) -> None:
    error = refused(dataset=tmp_path)

    assert isinstance(error, DataError) and "folder" in str(error)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n\n", b"\x00" * 500, b"PK\x03\x04 cut off", b'{"instruction": "a", "output": ""}\n' * 3, gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-9]],
)
def test_files_without_anything_to_learn_from(refused: Refused, tmp_path: Path, content: bytes) -> None:
    suffix = ".jsonl.gz" if content.startswith(b"\x1f\x8b") else ".jsonl"
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content)

    error = refused(dataset=path)
    assert isinstance(error, DataError) and path.name in str(error)


def test_one_row_is_enough_to_train_and_too_little_to_tell(tmp_path: Path, small_model: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"instruction": "a", "output": "b"}\n')

    result = run(load_recipe(values=recipe_values(small_model, path)), run_dir=tmp_path / "run")

    assert result.report is not None and result.report["verdict"] is None
    assert {warning["code"] for warning in result.report["warnings"]} >= {"too_few_test_rows"}


def test_a_base_model_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    assert "did you mean danlu/tiny?" in refused(model="danlu/tini").fix
    assert isinstance(refused(model=tmp_path / "none"), UnknownNameError)


def test_a_hub_model_without_a_network(refused: Refused) -> None:
    error = refused(model="nobody/nothing-of-that-name")

    assert isinstance(error, ModelError | UnknownNameError) and "nobody/nothing-of-that-name" in error.what


def test_a_file_in_place_of_a_model(refused: Refused, small_model: Path) -> None:
    assert "is a file" in refused(model=small_model / "config.json").what


Damage = Callable[[Path], object]


def edit(name: str, **changes: Any) -> Damage:
    """Change keys of a JSON file."""

    def damage(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def shards(*names: str) -> Damage:
    """Say that the weights are in these files."""

    def damage(folder: Path) -> None:
        content = {"metadata": {}, "weight_map": {f"layer{n}": name for n, name in enumerate(names)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))

    return damage


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def lose_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def cut(name: str, keep: int) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


BROKEN_MODELS: dict[str, tuple[Damage, type[DanluError], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), ModelError, "no config.json"),
    "half a config": (cut("config.json", 40), ModelError, "is not valid JSON"),
    "config is a list": (lambda folder: (folder / "config.json").write_text("[]"), ModelError, "config.json"),
    "auto_map": (edit("config.json", auto_map={"AutoModelForCausalLM": "x.Y"}), UnsafeModelError, "never runs code"),
    "tokenizer auto_map": (edit("tokenizer_config.json", auto_map={"AutoTokenizer": ["x.Y", None]}), UnsafeModelError, "never runs code"),
    "missing shard": (shards("model.safetensors", "model-00002-of-00002.safetensors"), ModelError, "lacks 1 of 2 weight files: model-00002-of-00002"),
    "shard outside": (shards("../model.safetensors"), UnsafeModelError, "points outside its folder"),
    "absolute shard": (shards("/etc/passwd"), UnsafeModelError, "points outside its folder"),
    "half an index": (lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {'), ModelError, "index.json"),
    "odd index": (lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": 1}}'), ModelError, "index.json"),
    "cut weights": (cut("model.safetensors", 100_000), ModelError, "not a whole safetensors file"),
    "empty weights": (cut("model.safetensors", 0), ModelError, "not a whole safetensors file"),
    "pickle weights": (only_pickle, UnsafeModelError, "only pickle weights: pytorch_model.bin"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), ModelError, "has no weights"),
    "a tensor is missing": (lose_a_tensor, ModelError, "lacks weights"),
    "other sizes": (edit("config.json", hidden_size=96), ModelError, "cannot be loaded"),
    "another architecture": (edit("config.json", model_type="vit"), ModelError, "cannot be loaded"),
    "an unknown architecture": (edit("config.json", model_type="nothing_of_that_name"), ModelError, "cannot be loaded"),
    "a size in words": (edit("config.json", hidden_size="many"), ModelError, "cannot be loaded"),
    "no tokenizer": (no_tokenizer, ModelError, "tokenizer"),
    "half a tokenizer": (cut("tokenizer.json", 5000), ModelError, "the tokenizer in"),
    "not a tokenizer": (lambda folder: (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "Odd"}}'), ModelError, "the tokenizer in"),
}


@pytest.mark.parametrize("name", BROKEN_MODELS)
def test_a_model_folder_that_is_not_whole_or_not_safe(refused: Refused, model: Path, name: str) -> None:
    damage, kind, words = BROKEN_MODELS[name]
    damage(model)

    error = refused(model=model)
    assert type(error) is kind, error
    assert words in str(error)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"data": {"max_seq_len": 513}}, "data.max_seq_len 513 is more than the model can read (512)"),
        ({"method": {"type": "lora", "rank": 65}}, "method.rank 65 is larger than the smallest matrix of the model (32)"),
        ({"method": {"type": "lora", "target_modules": ["nothing_proj"]}}, "names no layer of this model"),
    ],
)
def test_settings_that_do_not_fit_the_model(refused: Refused, values: dict[str, Any], words: str) -> None:
    error = refused(**values)

    assert isinstance(error, NoEffectError)
    assert words in error.what


def test_a_length_that_leaves_no_answer_whole(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"instruction": f"{n}", "output": "many words " * 50}) for n in range(20)))

    error = refused(dataset=path, data={"max_seq_len": 32})

    assert isinstance(error, TooFewExamplesError)
    assert "the answer alone is longer than 32 tokens" in error.why and "raise data.max_seq_len" in error.fix


def test_a_run_folder_that_cannot_be_made(tmp_path: Path, small_model: Path, rows_file: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    recipe = load_recipe(values=recipe_values(small_model, rows_file))

    for folder in (tmp_path / "file", tmp_path / "file/run"):
        with pytest.raises(StorageError, match="cannot write"):
            run(recipe, run_dir=folder)


def test_a_disk_that_is_full_from_the_start(refused: Refused, small_file_limit: None) -> None:
    error = refused()

    assert isinstance(error, StorageError) and error.why == "File too large"
