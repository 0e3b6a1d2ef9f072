"""Danlu on one GPU: a Llama of 8 billion random weights, LoRA rank 16, bfloat16: `python -m bench.gpu`.

Needs Danlu's own packages only. Every row is a process of its own. MFU is 4 P T over time and the GPU's measured peak of
plain bfloat16 products: forward 2 P T, gradients of activations 2 P T, none of frozen weights (docs/performance.md).
"""

import argparse
import json
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "8b": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "model_type": "llama",
        "vocab_size": 1000,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
    },
}
MEASURED = (("fast", 16384), ("fast", 8192), ("fast", 4096), ("fast", 2048), ("reference", 8192), ("reference", 2048))
"""(path, tokens of a micro batch); the reference path pads."""


def main() -> None:
    from danlu.services.bench import measure_in_process

    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu is for trying the bench itself, with --shape tiny")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="8b", help="size of the model (default 8b)")
    parser.add_argument("--seconds", type=float, default=8.0, help="least time of each measurement (default 8)")
    parser.add_argument("--num-tokens", type=int, default=65536, help="tokens of one measured pass (default 65536)")
    arguments = parser.parse_args()
    shape = SHAPES[arguments.shape]
    peaks = measure_in_process({"system": "peak", "device": arguments.device, "repeats": 20}, 1)
    peak = max(rate for library, rate in peaks.items() if library != "int8")
    print(f"Peak of plain products: {peak / 1000:.0f} TFLOP/s\n")
    print("| path | tokens per micro batch | tokens/s | peak memory GB | MFU (4PT) | executed share of peak |")
    print("|---|--:|--:|--:|--:|--:|", flush=True)
    for system, micro_batch_tokens in MEASURED:
        task = {
            "shape": shape,
            "system": system,
            "lengths": "long",
            "num_tokens": arguments.num_tokens,
            "micro_batch_tokens": min(micro_batch_tokens, arguments.num_tokens),
            "device": arguments.device,
            "rank": 16,
            "seconds": arguments.seconds,
        }
        result = measure_in_process(task, 8 if arguments.device == "cuda" else 1)
        mfu = 4 * result["num_parameters"] * result["tokens_per_second"] / 1e9 / peak
        numbers = f"{result['tokens_per_second']:.0f} | {result['peak_memory_bytes'] / 2**30:.1f} | {mfu:.1%} | {result['gflops'] / peak:.1%}"
        print(f"| {system} | {task['micro_batch_tokens']} | {numbers} |", flush=True)
        print(json.dumps({**task, "shape": arguments.shape, **result}), flush=True)


if __name__ == "__main__":
    main()
