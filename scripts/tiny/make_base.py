"""Make the folder that `danlu/tiny` is pretrained from: a Qwen3 configuration and the trained tokenizer, no weights."""

import argparse
import shutil
from pathlib import Path

from transformers import Qwen3Config


def tiny_config(vocab_size: int, eos_token_id: int, pad_token_id: int) -> Qwen3Config:
    """About 6.2 M parameters, of which 2.0 M are the tied embedding."""
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        bos_token_id=None,
        architectures=["Qwen3ForCausalLM"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, default=Path("build/tiny/tokenizer"))
    parser.add_argument("--out", type=Path, default=Path("build/tiny/base"))
    arguments = parser.parse_args()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    shutil.copytree(arguments.tokenizer, arguments.out, dirs_exist_ok=True)
    tiny_config(len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id).save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
