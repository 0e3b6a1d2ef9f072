"""Turn a finished run into the folder that ships as danlu/tiny: bfloat16 safetensors, checked against the float32 model.

`python scripts/tiny/publish.py RUN/model` writes to src/danlu/bundled/tiny. The new files are made in a temporary folder, loaded again
and compared with the source on held-out conversations; only then do they replace the old ones.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # documents are longer than the model reads at once: known

import numpy as np
import torch

from danlu.bundled import FOLDER
from danlu.data.chat import ChatRenderer
from danlu.data.pack import EncodedExample
from danlu.files import read_jsonl
from danlu.models.load import load_model, load_tokenizer
from danlu.recipe.base import OBJECTIVES
from danlu.training.forward import score_examples

MAX_BYTES = 16_000_000
"""Most bytes of safetensors that the package may carry."""
MAX_NLL_RISE = 0.002
"""Most nats per token that rounding to bfloat16 may cost on the held-out conversations."""
WEIGHT_FILES = ("config.json", "generation_config.json", "model.safetensors")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
END_OF_TURN, PADDING = "<|im_end|>", "<|endoftext|>"
MAX_SEQ_LEN = 512


def publish(source: Path, tokenizer_dir: Path, out: Path, chats: list[Path]) -> tuple[float, float]:
    """Write the model in `source` to `out` as bfloat16; return NLL per token (nats) before and after rounding.

    The tokenizer files are those of `tokenizer_dir`, as train_tokenizer.py wrote them: with the chat template inside
    tokenizer_config.json, where every version of Transformers looks for it (saving a tokenizer again puts it elsewhere).

    Raises:
        ValueError: the files are too large, or they do not behave like the source.
    """
    tokenizer = load_tokenizer(source)
    model = load_model(source, dtype=torch.float32).eval()
    examples = encode_chats(chats, ChatRenderer(tokenizer))
    before = nll_per_token(model, examples)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The model ends a turn with im_end; endoftext ends a document and fills batches.
        for config in (model.config, model.generation_config):
            config.eos_token_id = tokenizer.convert_tokens_to_ids(END_OF_TURN)
            config.pad_token_id = tokenizer.convert_tokens_to_ids(PADDING)
            config.bos_token_id = None
        model.to(torch.bfloat16).save_pretrained(folder)
        for file in TOKENIZER_FILES:
            shutil.copy(tokenizer_dir / file, folder / file)
        published = encode_chats(chats, ChatRenderer(load_tokenizer(folder)))
        if not all(np.array_equal(a.ids, b.ids) and np.array_equal(a.mask, b.mask) for a, b in zip(examples, published, strict=True)):
            raise ValueError(f"the tokenizer in {tokenizer_dir} is not the one that {source} was trained with")
        num_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        if num_bytes > MAX_BYTES:
            raise ValueError(f"the weights take {num_bytes:,} bytes; at most {MAX_BYTES:,} may ship")
        after = nll_per_token(load_model(folder, dtype=torch.float32).eval(), examples)
        if after - before > MAX_NLL_RISE:
            raise ValueError(f"rounding raised the loss from {before:.4f} to {after:.4f} nats per token; at most {MAX_NLL_RISE} is accepted")
        out.mkdir(parents=True, exist_ok=True)
        for file in (*WEIGHT_FILES, *TOKENIZER_FILES):
            shutil.copy(folder / file, out / file)
            (out / file).chmod(0o644)
    return before, after


def encode_chats(files: list[Path], renderer: ChatRenderer) -> list[EncodedExample]:
    """Conversations as training reads them; those over MAX_SEQ_LEN tokens are left out.

    Raises:
        ValueError: none is left to compare on.
    """
    rows = [row for file in files for row in read_jsonl(file)]
    encoded = [blocks[0] for blocks in OBJECTIVES.parse("sft").encode(rows, renderer, 10**9)]  # type: ignore[attr-defined]
    kept = [block for block in encoded if len(block.ids) <= MAX_SEQ_LEN]
    if not kept:
        raise ValueError(f"no conversation to compare on in {', '.join(map(str, files)) or 'no file'}")
    return kept


def nll_per_token(model: torch.nn.Module, examples: list[EncodedExample]) -> float:
    """Mean negative log-likelihood of the assistant's tokens, in nats."""
    nats, counts = score_examples(model, examples, micro_batch_tokens=2048, device="cpu", path="reference")
    return float(np.sum(nats) / np.sum(counts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, help="the model/ folder of a finished run")
    parser.add_argument("--tokenizer", type=Path, default=Path("build/tiny/tokenizer"), help="folder written by train_tokenizer.py")
    parser.add_argument("--out", type=Path, default=FOLDER / "tiny", help="folder to write")
    parser.add_argument("--corpus", type=Path, default=Path("build/tiny"), help="folder with chat*.validation.jsonl")
    arguments = parser.parse_args()
    before, after = publish(arguments.source, arguments.tokenizer, arguments.out, sorted(arguments.corpus.glob("chat*.validation.jsonl")))
    size = sum(file.stat().st_size for file in arguments.out.glob("*.safetensors"))
    print(f"{arguments.out}: {size:,} bytes of weights; held-out conversations {before:.4f} -> {after:.4f} nats per token")
    return 0


if __name__ == "__main__":
    sys.exit(main())
