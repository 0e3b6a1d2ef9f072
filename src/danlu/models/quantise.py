"""Frozen base weights in 4 or 8 bits, by bitsandbytes: how they are loaded, computed with, and turned back.

Reference: Dettmers et al. 2023, arXiv:2305.14314, section 3 (NF4, double quantisation); Dettmers et al. 2022,
arXiv:2208.07339 (8-bit). On a CPU the products are computed in float32 with the dequantised weight.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from danlu.errors import MissingExtraError
from danlu.recipe.base import Quantisation

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def require_bitsandbytes(what: str, *, instead: str) -> None:
    """Raise MissingExtraError when bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError(
            f"{what} needs bitsandbytes, which is not installed", why="it is an extra of its own: 125 MB", fix=f"pip install 'danlu[quant]', or {instead}"
        )


def keep_quiet() -> None:
    """Silence what bitsandbytes, which PEFT imports wherever it is installed, logs about optional kernels and casts; call it before PEFT is imported."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def load_options(quantisation: Quantisation, *, dtype: torch.dtype, device: str) -> dict[str, Any]:
    """What `from_pretrained` needs to quantise while it loads; everything but the linear layers stays in `dtype`."""
    require_bitsandbytes("a quantised base model", instead="use method lora")
    from transformers import BitsAndBytesConfig

    if quantisation.bits == 8:
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=quantisation.is_double, bnb_4bit_compute_dtype=dtype
        )
    return {"quantization_config": config, "device_map": {"": device}}


def compute_exactly(model: PreTrainedModel) -> None:
    """Keep 4-bit layers on a CPU from computing in bfloat16 outside of training, as they do on processors that have it.

    The weights of such a layer are repacked at the first forward pass in eval mode; training after a validation would read them wrongly.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def dequantise(model: PreTrainedModel) -> PreTrainedModel:
    """Turn quantised layers into ordinary ones that hold exactly what was computed with."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would warn that this loses accuracy, which it does not: the loss was made by quantising
    try:
        return model.dequantize()
    finally:
        logging.set_verbosity(verbosity)
