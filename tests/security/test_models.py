"""Attacks through model and adapter folders (docs/security.md, "Models"): each test fails when its guard is removed."""

import json
import os
import pickle
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danlu.data.chat import ChatRenderer
from danlu.data.templates import check_template, time_limit
from danlu.errors import DanluError, ModelError, TemplateError, UnsafeModelError
from danlu.models import safety
from danlu.models.load import check_model_dir, check_safetensors, load_tokenizer
from danlu.models.regexes import danger


@pytest.fixture
def model(tmp_path: Path, small_model: Path) -> Path:
    return Path(shutil.copytree(small_model, tmp_path / "model"))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter of rank 4 over one matrix."""
    from safetensors.numpy import save_file

    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "base_model_name_or_path": "danlu/tiny"}))
    names = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    save_file({names.format("A"): np.zeros((4, 32), np.float32), names.format("B"): np.zeros((32, 4), np.float32)}, folder / "adapter_model.safetensors")
    safety.check_adapter(folder)
    return folder


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


PICKLES = (
    "pytorch_model.bin",
    "model.pt",
    "last.ckpt",
    "training_args.bin",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    ".metadata",
    "adapter_model.bin",
    "consolidated.pth",
    "vocab.pkl",
)


def test_pickles_under_any_name_beside_a_model_never_run(model: Path, tmp_path: Path) -> None:
    from danlu.models.load import load_model

    marker = tmp_path / "ran"
    for name in PICKLES:
        (model / name).write_bytes(pickle.dumps(Bomb(marker)))
    (model / "object.npy").write_bytes(
        b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n" + pickle.dumps(Bomb(marker))
    )

    check_model_dir(model)
    load_tokenizer(model)
    load_model(model)
    (model / "model.safetensors").unlink()
    with pytest.raises(UnsafeModelError, match="only pickle weights"):
        load_model(model)

    assert not marker.exists()


def test_a_pickle_that_calls_itself_safetensors_never_runs(model: Path, adapter: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for path in (model / "model.safetensors", adapter / "adapter_model.safetensors"):
        path.write_bytes(pickle.dumps(Bomb(marker)))

    for check, folder in ((check_model_dir, model), (safety.check_adapter, adapter)):
        with pytest.raises(ModelError, match="not a whole safetensors file"):
            check(folder)  # type: ignore[operator]
    assert not marker.exists()


def test_pickles_in_a_checkpoint_and_in_stored_arrays_never_run(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    from danlu.data.pack import TokenFile
    from danlu.errors import CheckpointError
    from danlu.training import checkpoint

    marker = tmp_path / "ran"
    folder = tmp_path / "step-000001"
    folder.mkdir()
    for name in ("weights.safetensors", "optimizer.safetensors", "optimizer.pt", ".metadata"):
        (folder / name).write_bytes(pickle.dumps(Bomb(marker)))
    (folder / "state.json").write_text("{}")
    checkpoint.seal(folder)
    with pytest.raises((CheckpointError, SafetensorError)):
        checkpoint.load(folder)
    array = np.empty(1, object)
    array[0] = Bomb(marker)
    np.save(tmp_path / "offsets.npy", array, allow_pickle=True)
    with pytest.raises((ValueError, OSError)):
        TokenFile(tmp_path)

    assert not marker.exists()


def header(path: Path, entries: Any, size: int | None = None, data: bytes = bytes(64)) -> Path:
    written = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(written) if size is None else size) + written + data)
    return path


def tensor(begin: int, end: int, count: int = 8) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [count], "data_offsets": [begin, end]}


HEADERS: dict[str, tuple[Any, int | None]] = {
    "2^62 bytes of header": ({"a": tensor(0, 32)}, 2**62),
    "overlap": ({"a": tensor(0, 32), "b": tensor(16, 48)}, None),
    "beyond the end": ({"a": tensor(0, 2**40, 2**38)}, None),
    "a hole": ({"a": tensor(0, 32), "b": tensor(40, 64, 6)}, None),
    "the same name twice": (
        b'{"a": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}, "a": {"dtype": "F32", "shape": [8], "data_offsets": [32, 64]}}',
        None,
    ),
    "negative": ({"a": {"dtype": "F32", "shape": [-8], "data_offsets": [0, 64]}}, None),
    "a shape that overflows": ({"a": {"dtype": "F32", "shape": [2**33, 2**33], "data_offsets": [0, 64]}}, None),
    "cut": ({"a": tensor(0, 32), "b": tensor(32, 96, 16)}, None),
    "no JSON": (b"{" * 100, None),
    "deep": (b'{"a":' * 5000, None),
    "too much data": ({"a": tensor(0, 32)}, None),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_lie_are_refused(tmp_path: Path, name: str) -> None:
    entries, size = HEADERS[name]

    with pytest.raises(ModelError, match="not a whole safetensors file"):
        check_safetensors(header(tmp_path / "a.safetensors", entries, size))


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "sub/../../outside.safetensors"])
def test_an_index_leads_nowhere_else(model: Path, shard: str) -> None:
    shutil.copy(model / "model.safetensors", model.parent / "outside.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))

    with pytest.raises(UnsafeModelError, match="points outside its folder"):
        check_model_dir(model)


def make_link(folder: Path) -> None:
    (folder / "extra.json").symlink_to("/etc/passwd")


def make_folder_link(folder: Path) -> None:
    (folder / "sub").symlink_to("/etc")


def make_pipe(folder: Path) -> None:
    os.mkfifo(folder / "special_tokens_map.json")


@pytest.mark.parametrize("make", [make_link, make_folder_link, make_pipe])
def test_links_and_devices_in_a_model_folder_are_refused(model: Path, adapter: Path, make: Callable[[Path], None]) -> None:
    for check, folder in ((check_model_dir, model), (safety.check_adapter, adapter)):
        make(folder)
        with pytest.raises(UnsafeModelError, match="leads out of its folder|no plain file"):
            check(folder)  # type: ignore[operator]


def test_the_cache_of_the_hub_keeps_its_links(model: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b/snapshots/0123", tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in model.iterdir():
        shutil.copy(path, blobs / path.name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)

    check_model_dir(snapshot)


CODE: list[tuple[str, dict[str, Any]]] = [
    ("config.json", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}),
    ("config.json", {"text_config": {"auto_map": {"AutoConfig": "evil.Config"}}}),
    ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}),
    ("generation_config.json", {"custom_generate": "evil/repository"}),
    ("config.json", {"_attn_implementation": "evil/kernels"}),
    ("config.json", {"attn_implementation": {"text": "evil/kernels@main"}}),
    ("config.json", {"experts_implementation": "evil/kernels:function"}),
    ("config.json", {"use_kernels": True}),
    ("config.json", {"kernel_config": {"RMSNorm": "evil/kernels:RMSNorm"}}),
    ("tokenizer_config.json", {"vocab_file": "/etc/passwd"}),
    ("tokenizer_config.json", {"gguf_file": "../../other/model.gguf"}),
]


@pytest.mark.parametrize(("name", "changes"), CODE)
def test_a_configuration_that_names_code_or_files_elsewhere_is_refused(model: Path, name: str, changes: dict[str, Any]) -> None:
    path = model / name
    if not path.exists():
        path.write_text("{}")
    edit(path, **changes)

    with pytest.raises(UnsafeModelError):
        check_model_dir(model)


@pytest.mark.parametrize(
    "changes",
    [
        {"megatron_config": {"a": 1}, "megatron_core": "os"},
        {"auto_mapping": {"parent_library": "os", "base_model_class": "system"}},
        {"auto_map": {"AutoModel": "evil.Model"}},
    ],
)
def test_an_adapter_that_names_modules_is_refused(adapter: Path, changes: dict[str, Any]) -> None:
    edit(adapter / "adapter_config.json", **changes)

    with pytest.raises(UnsafeModelError):
        safety.check_adapter(adapter)


NAMES = ["../../secret", "http://169.254.169.254/latest", "evil/repository"]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_folder_that_names_another_model_is_refused(model: Path, name: str) -> None:
    (model / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "base_model_name_or_path": name}))

    with pytest.raises(UnsafeModelError, match="a model and an adapter at once"):
        check_model_dir(model)


@pytest.mark.parametrize("name", NAMES)
def test_the_base_model_that_an_adapter_names_is_never_looked_up(small_model: Path, tmp_path: Path, name: str) -> None:
    from peft import LoraConfig, get_peft_model

    from danlu.models.load import load_model
    from danlu.models.pair import load_adapter

    folder = tmp_path / "adapter"
    get_peft_model(load_model(small_model), LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(folder)
    edit(folder / "adapter_config.json", base_model_name_or_path=name)

    assert load_adapter(load_model(small_model), folder).peft_config["default"].r == 2  # the sockets of tests reach this machine only


@pytest.mark.parametrize("changes", [{"r": 10**9}, {"rank_pattern": {"q_proj": 10**9}}, {"num_virtual_tokens": 10**12}])
def test_an_adapter_of_rank_a_billion_is_refused_before_anything_is_allocated(adapter: Path, changes: dict[str, Any]) -> None:
    edit(adapter / "adapter_config.json", **changes)

    with pytest.raises(ModelError, match="does not fit its own weights"):
        safety.check_adapter(adapter)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 10**6, "head_dim": 10**6},
        {"vocab_size": 10**12},
        {"intermediate_size": 10**9},
        {"num_hidden_layers": 10**9},
        {"num_attention_heads": 10**9},
        {"num_experts": 10**12},
    ],
)
def test_a_configuration_of_a_giant_is_refused_before_anything_is_allocated(model: Path, changes: dict[str, Any]) -> None:
    edit(model / "config.json", **changes)

    with pytest.raises(ModelError, match="does not fit its weights"):
        check_model_dir(model)


def test_the_embedded_model_and_the_patterns_of_published_tokenizers_pass(repository: Path) -> None:
    tiny = repository / "src/danlu/bundled/tiny"
    check_model_dir(tiny)
    safety.check_tokenizer_file(tiny / "tokenizer.json")
    for pattern in PUBLISHED:
        assert danger(pattern) is None, pattern


PUBLISHED = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",  # Qwen
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+",  # o200k
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",  # DeepSeek
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}&&[^\p{Han}]]*[\p{Ll}&&[^\p{Han}]]+(?i:'s|'t)?|\p{N}{1,3}",  # Kimi
    r" {2,}",
    r"(?>a+)+b",
    r"(?:ab)+c",
    r"(a{1,3})+",
    r"\((\s*\)|[()+*]+)",
)


@pytest.mark.parametrize(
    "pattern", [r"(a+)+$", r"(?:a|a)*b", r"(\s*\w+)*!", r"((a{2,})b?)+c", r"([a-z]+|\d)+x", r"(?i:(x+))*y", r"(.*a){20,}", "x" * 20_001, r"(a*)*)"]
)
def test_a_tokenizer_whose_patterns_can_hang_is_refused(model: Path, pattern: str) -> None:
    path = model / "tokenizer.json"
    content = json.loads(path.read_text())
    content["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}],
    }
    path.write_text(json.dumps(content))

    with pytest.raises(UnsafeModelError, match="can take for ever"):
        load_tokenizer(model)


BOMBS = {
    "a loop in a loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a * b %}{% endfor %}{% endfor %}",
    "a loop in spans": "{% generation %}{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}{% endgeneration %}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_chat_template_that_never_ends_is_ended(model: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from danlu.data import chat

    monkeypatch.setattr(chat, "time_limit", lambda: time_limit(0.2))
    tokenizer = load_tokenizer(model)
    tokenizer.chat_template = BOMBS[name]
    start = time.monotonic()

    with pytest.raises(TemplateError, match="takes too long"):
        ChatRenderer(tokenizer).render([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("template", ["{{ 9 ** 9 ** 9 }}", "{{ 'a' * 99999999 }}", "{{ 'a' | center(1000000000) }}", "x" * 1_000_001, "{% for %}{{"])
def test_a_chat_template_with_endless_instructions_is_refused(model: Path, template: str) -> None:
    tokenizer = load_tokenizer(model)
    tokenizer.chat_template = template

    with pytest.raises(TemplateError):
        ChatRenderer(tokenizer).prompt_text([{"role": "user", "content": "a"}])


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__init__.__globals__['os'].system('true') }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ self.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{{ messages.append('x') }}",
    ],
)
def test_a_chat_template_reaches_nothing_outside_its_sandbox(model: Path, template: str) -> None:
    tokenizer = load_tokenizer(model)
    tokenizer.chat_template = template
    shown = ""

    try:
        shown = ChatRenderer(tokenizer).prompt_text([{"role": "user", "content": "a"}])
    except DanluError as error:
        assert isinstance(error, TemplateError)
    assert not any(word in shown for word in ("class", "root:", "uid=", "builtins"))


def test_the_templates_that_come_with_danlu_pass(repository: Path) -> None:
    from danlu.data.chat import DEFAULT_TEMPLATE

    check_template(DEFAULT_TEMPLATE)
    ChatRenderer(load_tokenizer(repository / "src/danlu/bundled/tiny"))
