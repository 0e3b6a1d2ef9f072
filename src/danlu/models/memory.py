"""How much memory a training run holds at its peak, by part: the one formula behind recommend, run, forecast and badges.

From config.json, the recipe and the token lengths alone: no torch, nothing allocated, so that a width of 10^6 or a rank of 10^9 is
answered too. Every count is derived from the code that holds the tensors (docs/forecast.md has the derivation, line by line):
`training/kernels/decoder.py` and `cross_entropy.py` for the fused layers, Transformers' own layers for the others. What cannot be
derived is measured: the process itself (PROCESS_BYTES) and what the allocator keeps (ALLOCATOR_SHARE).

Shapes: T tokens of a micro batch, L its label rows, D width, Q all query heads, K all key heads, I feed-forward width, V vocabulary, R rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any, Literal

from danlu.data.pack import divide, pack, step_batches
from danlu.models.shape import ModelShape
from danlu.models.trained import Trained, adapted_linears, rank_of, trained_by
from danlu.recipe.recipe import Recipe

Fit = Literal["fits", "tight", "too_big"]
FITS_SHARE = 0.8
"""A run that needs at most this share of what is free fits; up to all of it is tight."""
PROCESS_BYTES = 380 * 2**20
"""Python, PyTorch, Transformers and PEFT before a model is loaded (measured, docs/forecast.md)."""
ENGINE_BYTES = 110 * 2**20
"""What loading a model, adding an adapter and the first pass bring in beside tensors: modules, compiled kernels, threads (measured)."""
GPU_HOST_BYTES = 3 * 2**30
"""Host memory of a process that trains on a GPU, whose libraries are larger (not measured here; docs/forecast.md)."""
ALLOCATOR_SHARE, MAX_ALLOCATOR_BYTES = 0.4, 160 * 2**20
"""What the C allocator keeps beyond live tensors, as a share of activations and temporaries; large blocks go back at once (measured)."""
FUSED_ALLOCATOR_SHARE, MAX_FUSED_ALLOCATOR_BYTES = 0.55, 440 * 2**20
"""The same of the fused layers, whose tensors are few and large."""
KERNEL_BYTES, MAX_KERNELS = 440_000, 1024
"""oneDNN compiles a product for each new shape and keeps the last 1,024 (measured; docs/forecast.md). Packed batches bring new shapes all the time."""
CHUNK_BYTES, MIN_CHUNK_ROWS = 16 * 2**20, 32
"""As in training/kernels/cross_entropy.py (a test compares them)."""
LEAST_FILL, MOST_FILL = 16, 64
"""Rows are filled up to a multiple of these, and of a sixteenth to an eighth of their number in between."""
BLOCK_ROWS = 256
"""As in training/kernels/attention.py."""
TOKEN_BYTES = 5
"""A token in the token cache: four bytes of id, one of loss mask; the pages that were read stay in memory."""
MAX_CACHE_BYTES, MAX_ROWS = 256 << 20, 64
"""As in models/generate.py."""
SIMULATED_STEPS = 200
"""Steps whose micro batches are looked at for the widest one."""

OPTIMIZER_BYTES = {"adamw": 8.0, "adamw_8bit": 2.1, "adafactor": 0.1, "lion": 4.0, "muon": 4.0, "sgd": 0.0}
"""State per trained parameter. Muon: momentum on matrices; what it leaves to AdamW is counted as AdamW's."""
OPTIMIZER_COPIES = {"adafactor": 3.0, "lion": 2.0, "muon": 4.0}
"""Copies of the largest trained matrix that a step makes; the fused ones make none."""
QUANTISED_BYTES = {4: 0.516, 8: 1.002}
"""Per weight. NF4: half a byte, and a scale per 64 weights that is quantised itself (Dettmers et al. 2023, section 3); 8 bit: a scale per row."""


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass gets."""

    tokens: int
    label_rows: int
    longest: int
    num_examples: int

    @property
    def padded_tokens(self) -> int:
        """Tokens of the same batch when every example is padded to the longest."""
        return self.longest * self.num_examples


@dataclass(frozen=True)
class MemoryParts:
    """Peak memory in bytes, by part; the parts sum to `peak_bytes`."""

    process_bytes: int
    weights_bytes: int
    adapters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    temporary_bytes: int
    phase: str
    """When the peak is reached: `load`, `forward`, `head`, `backward`, `step` or `generation`."""

    @property
    def peak_bytes(self) -> int:
        """The sum of all parts."""
        return sum(value for key, value in asdict(self).items() if key != "phase")

    @property
    def fixed_bytes(self) -> int:
        """What does not shrink with the micro batch."""
        return self.peak_bytes - self.activations_bytes - self.temporary_bytes

    def to_dict(self) -> dict[str, Any]:
        """Plain values with the peak."""
        return {**asdict(self), "peak_bytes": self.peak_bytes}


@cache
def uses_onednn() -> bool:
    """Whether matrix products go through oneDNN here, as training/kernels/gemm.py decides, told without torch."""
    try:
        info = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return False
    return "AuthenticAMD" in info and all(f" {flag} " in info for flag in ("avx512f", "avx512bw", "avx512dq", "avx512vl"))


def filled_rows(count: int) -> int:
    """The size that the fused layers fill `count` rows up to, so that shapes come again: at most an eighth more from 128 rows on."""
    step = min(MOST_FILL, max(LEAST_FILL, 1 << max(0, count.bit_length() - 4)))
    return -(-count // step) * step


def kernels_bytes(lengths: Iterable[int], sizes: Iterable[int], label_rows: Iterable[int], *, is_stock: bool = False) -> int:
    """Memory of the products compiled for examples of such lengths in micro batches of such sizes and numbers of label rows.

    An example of a new length takes three for the last block of its attention, a micro batch of a new size about forty, and
    a new number of label rows twenty in the last layer and the head. All of them are filled up to sizes that come again.
    Where stock layers compute in float32, attention and the head alone go that way: three, none, and four.
    """
    if not uses_onednn():
        return 0
    num_lengths, num_sizes, num_labels = (len({filled_rows(n) for n in numbers}) for numbers in (lengths, sizes, label_rows))
    return KERNEL_BYTES * min(MAX_KERNELS, 3 * num_lengths + (4 * num_labels if is_stock else 40 * num_sizes + 20 * num_labels))


def fit(needed_bytes: int, available_bytes: int) -> Fit:
    """Whether a run that needs so much memory `fits`, is `tight`, or is `too_big` for what is free."""
    if needed_bytes <= FITS_SHARE * available_bytes:
        return "fits"
    return "tight" if needed_bytes <= available_bytes else "too_big"


def num_answers(recipe: Recipe) -> int:
    """Sequences that a step is trained on for each of its examples, where the model writes them itself; else 1."""
    return int(getattr(recipe.objective, "num_answers", 1)) if recipe.objective.is_online else 1


def as_trained(recipe: Recipe, lengths: Sequence[int], labels: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """Tokens and label tokens of what is trained on: prompts with answers as long as they may become, where the model writes these itself."""
    if not recipe.objective.is_online:
        return lengths, labels
    longest = recipe.objective.reserved_tokens
    return [int(n) + longest for n in lengths], [longest] * len(lengths)


def shares_of_steps(recipe: Recipe, lengths: Sequence[int], num_processes: int = 1) -> list[list[list[int]]]:
    """Of each of the first steps, the examples of each process (an example that is answered several times is there as often)."""
    batch_size, copies = int(recipe.optim.global_batch_size), num_answers(recipe)
    num_steps = min(ceil(len(lengths) / batch_size), SIMULATED_STEPS)
    steps = step_batches(len(lengths), global_batch_size=batch_size, seed=recipe.seed, start_step=0, num_steps=num_steps)
    asked = ([int(i) for i in indices for _ in range(copies)] for indices in steps)
    return [[[step[i] for i in share] for share in divide([int(lengths[i]) for i in step], num_processes)] for step in asked]


def micro_batches(
    recipe: Recipe, lengths: Sequence[int], labels: Sequence[int], micro_batch_tokens: int, *, shares: Sequence[Sequence[Sequence[int]]] | None = None
) -> list[MicroBatch]:
    """The distinct micro batches of the first steps, as the loop will make them."""
    found: set[MicroBatch] = set()
    for step in shares_of_steps(recipe, lengths) if shares is None else shares:
        for share in step:
            sizes = [int(lengths[i]) for i in share]
            for group in pack(sizes, micro_batch_tokens):
                chosen = [share[i] for i in group]
                found.add(MicroBatch(sum(sizes[i] for i in group), sum(int(labels[i]) for i in chosen), max(sizes[i] for i in group), len(group)))
    return list(found)


def num_micro_batches(shares: Sequence[Sequence[Sequence[int]]], lengths: Sequence[int], micro_batch_tokens: int) -> float:
    """Micro batches of a step in the process that makes most of them, on average over the first steps."""
    counts = [max(len(pack([int(lengths[i]) for i in share], micro_batch_tokens)) for share in step) for step in shares]
    return sum(counts) / max(1, len(counts))


def peak_memory(
    shape: ModelShape,
    recipe: Recipe,
    lengths: Sequence[int],
    labels: Sequence[int],
    *,
    micro_batch_tokens: int | None = None,
    process_bytes: int | None = None,
    stored_bytes_per_weight: float | None = None,
    device: str = "cpu",
    num_processes: int = 1,
    is_sharded: bool = False,
) -> MemoryParts:
    """Forecast the peak over all micro batches of a resolved recipe, in one of the processes that train it.

    `process_bytes` is what the process holds before the model is loaded, where that was measured; on a GPU the peak is that of the GPU.
    """
    tokens = int(micro_batch_tokens or recipe.optim.micro_batch_tokens)
    prompts = lengths
    lengths, labels = as_trained(recipe, lengths, labels)
    shares = shares_of_steps(recipe, lengths, num_processes)
    is_accumulated = num_micro_batches(shares, lengths, tokens) > 1
    batches = micro_batches(recipe, lengths, labels, tokens, shares=shares)
    num_shards = num_processes if is_sharded else 1
    plans = [Plan.of(shape, recipe, batch, is_accumulated=is_accumulated, device=device, num_shards=num_shards) for batch in batches]
    held = TOKEN_BYTES * sum(int(n) for n in prompts)
    if recipe.training.path == "fast":
        is_stock = computes_stock(shape, recipe, device, num_shards)
        held += kernels_bytes((int(n) for n in lengths), (batch.tokens for batch in batches), (batch.label_rows for batch in batches), is_stock=is_stock)
    if recipe.objective.is_online:
        plans = [replace(plan, longest_prompt=max(int(n) for n in prompts)) for plan in plans]
    return max(
        (plan.parts(process_bytes=process_bytes, cache_bytes=held, stored_bytes_per_weight=stored_bytes_per_weight) for plan in plans),
        key=lambda parts: parts.peak_bytes,
    )


def _compute_bytes(recipe: Recipe) -> int:
    """Bytes of a number of the computation (`full` trains in float32 whatever the recipe's dtype)."""
    return 4 if recipe.training.dtype != "bfloat16" or recipe.method.type == "full" else 2


def is_fused(shape: ModelShape, recipe: Recipe, device: str, num_shards: int = 1) -> bool:
    """Whether training/kernels/decoder.py computes the layers."""
    plain = not getattr(recipe.method, "dropout", 0.0) and not getattr(recipe.method, "use_dora", False)
    is_simple = recipe.method.type in ("full", "freeze", "lora", "lora_plus_full", "prompt_tuning", "p_tuning")
    is_usual = recipe.training.path == "fast" and device == "cpu" and _compute_bytes(recipe) == 4 and num_shards == 1
    return is_usual and shape.is_fusable and plain and is_simple


def computes_stock(shape: ModelShape, recipe: Recipe, device: str, num_shards: int = 1) -> bool:
    """Whether the products of the layers are PyTorch's own in float32, which on no processor go through oneDNN (those in bfloat16 do)."""
    return not is_fused(shape, recipe, device, num_shards) and _compute_bytes(recipe) == 4


@dataclass(frozen=True)
class Plan:
    """One micro batch of one recipe on one model."""

    shape: ModelShape
    recipe: Recipe
    batch: MicroBatch
    trained: Trained
    is_accumulated: bool
    device: str
    num_shards: int = 1
    """Processes that the weights are divided over."""
    longest_prompt: int = 0
    """Tokens of the longest prompt that the model answers, where it writes what it is trained on."""

    @classmethod
    def of(cls, shape: ModelShape, recipe: Recipe, batch: MicroBatch, *, is_accumulated: bool, device: str = "cpu", num_shards: int = 1) -> Plan:
        """Put virtual tokens in, and see what is trained."""
        trained = trained_by(recipe, shape)
        if trained.virtual_tokens:
            added = trained.virtual_tokens
            batch = replace(batch, tokens=batch.tokens + added * batch.num_examples, longest=batch.longest + added)
        if recipe.training.path == "fast" and device == "cpu" and uses_onednn():
            batch = replace(batch, tokens=filled_rows(batch.tokens), label_rows=filled_rows(batch.label_rows))
        return cls(shape, recipe, batch, trained, is_accumulated, device, num_shards)

    @property
    def compute_bytes(self) -> int:
        """Bytes of a number of the computation."""
        return _compute_bytes(self.recipe)

    @property
    def is_fused(self) -> bool:
        """Whether training/kernels/decoder.py computes the layers."""
        return is_fused(self.shape, self.recipe, self.device, self.num_shards)

    def parts(self, *, process_bytes: int | None, cache_bytes: int, stored_bytes_per_weight: float | None) -> MemoryParts:
        """The parts at the moment when their sum is largest."""
        weights, gradients = self.weights_bytes() * (2 if self.recipe.holds_reference_model else 1), 4 * self.trained.num_parameters // self.num_shards
        # Tied to how the weights lie in their files: other number formats are held twice while they are converted.
        stored = self.compute_bytes if stored_bytes_per_weight is None else stored_bytes_per_weight
        conversion = 0 if stored == self.compute_bytes else int(stored * self.shape.num_parameters)
        if self.computes_int8:  # rounded after the model is loaded whole
            conversion += 3 * self.shape.linear_parameters
        if self.num_shards > 1:  # divided after it is loaded whole
            conversion += max(0, self.compute_bytes * self.shape.num_parameters - weights)
        optimizer = self.optimizer_bytes() // self.num_shards
        phases = [("load", 0, conversion, 0), ("step", gradients, self.step_copies_bytes(), 0), *self.passes(gradients)]
        if self.longest_prompt:
            phases.append(("generation", 0, self.generation_bytes(), 0))
        held = [(phase, grads, 0 if phase == "load" else optimizer, saved, temporary) for phase, grads, temporary, saved in phases]
        phase, grads, state, saved, temporary = max(held, key=lambda row: sum(row[1:]))
        base = PROCESS_BYTES if process_bytes is None else process_bytes
        if self.device == "cpu":
            base += ENGINE_BYTES
            share, most = (FUSED_ALLOCATOR_SHARE, MAX_FUSED_ALLOCATOR_BYTES) if self.is_fused else (ALLOCATOR_SHARE, MAX_ALLOCATOR_BYTES)
            temporary += min(most, int(share * (saved + temporary)))
        else:
            base, cache_bytes = 0, 0
        return MemoryParts(base + cache_bytes, weights, 4 * self.trained.num_added // self.num_shards, grads, state, saved, temporary, phase)

    def weights_bytes(self) -> int:
        """The base model's weights as they are held."""
        bits = 8 if self.computes_int8 else self.quantised_bits
        size = 4 if self.recipe.method.type == "full" else self.compute_bytes
        if bits is None and self.num_shards > 1:  # own part, and whole: embedding and head for a pass, one layer that is computed and the next one
            whole = self.shape.embedding_parameters + min(2, self.shape.layers) * self.shape.parameters_per_layer
            return size * min(self.shape.num_parameters, self.shape.num_parameters // self.num_shards + whole)
        if bits is None:
            return size * self.shape.num_parameters
        linear = self.shape.linear_parameters
        head = self.shape.vocabulary * self.shape.hidden if self.computes_int8 else 0  # rounded beside the exact one
        return int(QUANTISED_BYTES[bits] * linear) + size * (self.shape.num_parameters - linear) + head

    @property
    def computes_int8(self) -> bool:
        """Whether the layers' frozen weights are held as the 8-bit integers they are multiplied as (training/kernels/int8.py)."""
        return self.recipe.training.compute == "int8"

    @property
    def quantised_bits(self) -> int | None:
        """4 or 8 where the frozen weights are quantised."""
        return int(getattr(self.recipe.method, "bits", 4)) if self.recipe.method.type == "qlora" else None

    def optimizer_bytes(self) -> int:
        """State of the optimiser from the first step on."""
        name = self.recipe.optim.optimizer
        if name == "muon":
            embedding = self.shape.embedding_parameters if self.trained.trains_embedding else 0
            return 4 * (self.trained.num_parameters - embedding) + 8 * embedding
        return int(OPTIMIZER_BYTES.get(name, 8.0) * self.trained.num_parameters)

    def step_copies_bytes(self) -> int:
        """What the optimiser makes for a moment; activations are gone by then."""
        return int(4 * OPTIMIZER_COPIES.get(self.recipe.optim.optimizer, 0.0) * self.trained.largest)

    def generation_bytes(self) -> int:
        """What answering prompts holds: the cache of a batch, its widest prompt pass, and probabilities in float64 (models/generate.py)."""
        s, size = self.shape, self.compute_bytes
        width = self.longest_prompt + self.recipe.objective.reserved_tokens
        row = 2 * s.layers * s.key_width * size * width
        asked = int(self.recipe.optim.global_batch_size) * num_answers(self.recipe)
        rows = max(1, min(MAX_ROWS, asked, MAX_CACHE_BYTES // max(1, row)))
        prompts = size * rows * self.longest_prompt * (4 * s.hidden + 3 * s.inner)
        return rows * row + prompts + 3 * 8 * rows * s.vocabulary

    def passes(self, gradients: int) -> list[tuple[str, int, int, int]]:
        """(phase, gradients, temporary, saved) at the moments of a pass at which memory can be highest."""
        layers = range(self.trained.first_layer, self.shape.layers)
        is_full = self.recipe.method.type in ("full", "freeze")
        saved = [self.saved_bytes(layer) for layer in layers]
        kept = gradients if self.is_accumulated else 0
        head_saved, head_temporary = self.head_bytes()
        found = [("head", kept, head_temporary, sum(saved) + head_saved)]
        if not saved:
            return found
        found.append(("forward", kept, self.forward_bytes(), sum(saved)))
        per_layer = gradients // max(1, len(saved)) if is_full else 0
        for position in range(len(saved)):
            done = kept if self.is_accumulated else min(gradients, per_layer * (len(saved) - position)) if is_full else gradients
            found.append(("backward", done, self.backward_bytes(layers[position]), sum(saved[: position + 1])))
        return found

    def _rows(self, layer: int) -> tuple[int, int]:
        """Rows of a layer before and after its attention: the fused last layer goes on at label rows."""
        tokens = self.batch.padded_tokens if self.recipe.training.path == "reference" else self.batch.tokens
        return tokens, self.batch.label_rows if self.is_fused and layer == self.shape.layers - 1 else tokens

    def _adapter_rank(self, part: str, *, is_output: bool | None = None) -> int:
        """Ranks of the adapters of one half of a layer together: the width of x A^T that each keeps."""
        if self.recipe.method.type in ("full", "freeze", "ia3", "prompt_tuning", "p_tuning", "p_tuning_v2"):
            return 0
        chosen = [layer for layer in adapted_linears(self.recipe.method, self.shape) if layer.part == part]
        last = {"o_proj", "down_proj", "c_proj", "dense", "fc2"}
        if is_output is not None:
            chosen = [layer for layer in chosen if bool(set(layer.names) & last) == is_output]
        return sum(rank_of(self.recipe.method, layer) for layer in chosen)

    def saved_bytes(self, layer: int) -> int:
        """What a layer keeps for its backward pass."""
        s = self.shape
        before, after = self._rows(layer)
        if self.is_fused:
            attention = before * (s.hidden + 1 + s.query_width + 2 * s.key_width + self._adapter_rank("attention", is_output=False))
            attention += after * (s.query_width + self._adapter_rank("attention", is_output=True))
            return 4 * (attention + after * (s.hidden + 1 + 2 * s.inner + self._adapter_rank("feed_forward")))
        return before * self._stock_bytes_per_token()

    def _stock_bytes_per_token(self) -> int:
        """What Transformers' own layer keeps for each token, with adapters as they are."""
        s, size = self.shape, self.compute_bytes
        d, q, k = s.hidden, s.query_width, s.key_width
        is_reference = self.recipe.training.path == "reference"
        kind = self.recipe.method.type
        keeps_inputs = kind not in ("ia3", "prompt_tuning", "p_tuning", "p_tuning_v2")  # those of linear layers, for adapters or their own gradients
        numbers = s.num_norms * (2 if keeps_inputs else 1) * d + (q + k if s.has_head_norms else 0) + 2 * q + 2 * (q if is_reference else k)
        inner = s.experts_per_token * (s.expert_inner or s.inner) if s.num_experts > 1 else s.inner
        numbers += (4 if keeps_inputs or kind == "ia3" else 3) * inner if s.is_gated else (8 if "new" in s.activation else 2) * inner
        if kind == "ia3":  # keys and values before their factors
            numbers += 2 * k
        if getattr(self.recipe.method, "use_dora", False):  # outputs of each layer and of its adapter before the magnitudes
            numbers += 2 * sum(layer.outputs for layer in adapted_linears(self.recipe.method, s))
        numbers += self._adapter_rank("attention") + self._adapter_rank("feed_forward")
        total = size * numbers
        if size == 2:
            total += 4 * s.num_norms * d  # norms compute in float32
        if s.has_softcap:
            total += 4 * 5 * s.heads * self.batch.longest
        if getattr(self.recipe.method, "dropout", 0.0):  # noise and dropped input of each adapter
            total += 2 * size * sum(layer.inputs for layer in adapted_linears(self.recipe.method, s))
        return total

    def forward_bytes(self) -> int:
        """Temporaries of a layer's forward pass beside what it keeps."""
        s, tokens, size = self.shape, self._rows(0)[0], self.compute_bytes
        attention = tokens * (2 * s.query_width + s.key_width) + self._block_numbers()
        return size * max(attention, tokens * (2 * s.hidden + s.inner)) + self._dequantised_bytes()

    def backward_bytes(self, layer: int) -> int:
        """Temporaries of a layer's backward pass."""
        s, size = self.shape, self.compute_bytes
        before, after = self._rows(layer)
        d, q, k, i = s.hidden, s.query_width, s.key_width, s.inner
        trains_weights = self.recipe.method.type in ("full", "freeze")
        feed_forward = after * max(3 * i + d, 2 * i + 4 * d) + (min(d, i) * after + d * i if trains_weights else 0)
        if self.is_fused:
            attention = max(before * (d + 3 * q + 3 * k) + self._block_numbers(), before * (d + (4 if s.has_head_norms else 2) * q + 2 * k))
        else:
            attention = before * (2 * d + 4 * q + 4 * k) + self._block_numbers()
            feed_forward += after * i * (4 if getattr(self.recipe.method, "use_dora", False) else 1)
        return size * max(attention, feed_forward) + self._dequantised_bytes()

    def _block_numbers(self) -> int:
        """Copies by head of the longest example, and one block of attention weights."""
        s = self.shape
        return self.batch.longest * 3 * (s.query_width + s.key_width) + 2 * BLOCK_ROWS * (s.heads // s.kv_heads or 1) * self.batch.longest

    def _dequantised_bytes(self) -> int:
        if self.quantised_bits is None:
            return 0
        return 2 * self.compute_bytes * max(layer.num_weights for layer in self.shape.linears)

    def head_bytes(self) -> tuple[int, int]:
        """(saved, temporary) of the last norm, the head and the loss."""
        s, size, rows = self.shape, self.compute_bytes, self.batch.label_rows
        if self.recipe.training.path == "reference":
            return 0, 3 * 4 * self.batch.padded_tokens * s.vocabulary
        chunk = min(max(rows, 1), max(MIN_CHUNK_ROWS, CHUNK_BYTES // (4 * s.vocabulary)))
        logits = chunk * s.vocabulary * (4 if size == 4 else 8) * (2 if s.has_softcap else 1)
        weight = 3 * 4 * s.vocabulary * s.hidden if self.trained.trains_embedding else 0
        hidden = 0 if self.is_fused else size * self.batch.tokens * s.hidden
        return hidden + 2 * size * rows * s.hidden, 2 * size * rows * s.hidden + logits + weight
