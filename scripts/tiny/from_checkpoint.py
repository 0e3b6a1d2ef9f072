"""Turn a checkpoint of the pretraining run into a model folder: stage 2 carries on from there, with its own decay."""

import argparse
import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from danlu.training import checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a step-NNNNNN folder of the run")
    parser.add_argument("--base", type=Path, default=Path("build/tiny/base"), help="folder written by make_base.py")
    parser.add_argument("--out", type=Path, default=Path("build/tiny/pretrained"), help="model folder to write")
    arguments = parser.parse_args()
    shutil.copytree(arguments.base, arguments.out, dirs_exist_ok=True)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(arguments.base), dtype=torch.float32)
    checkpoint.restore_weights(model, checkpoint.load(arguments.checkpoint).weights)
    model.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
