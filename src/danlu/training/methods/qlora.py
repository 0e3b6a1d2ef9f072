"""QLoRA: LoRA on a base model whose frozen weights are kept in 4 or 8 bits.

Reference: Dettmers et al. 2023, arXiv:2305.14314, eq. 5-6: the weight is dequantised for each product, the adapter stays in full
precision. 8 bits: Dettmers et al. 2022, arXiv:2208.07339.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from danlu.recipe.base import METHODS, Quantisation
from danlu.training.low_rank import LowRank


@METHODS.register
class QLoRA(LowRank):
    """LoRA on base weights quantised when they are loaded: about a quarter of the memory of 16-bit weights. Needs `danlu[quant]`."""

    type: Literal["qlora"] = "qlora"
    bits: Literal[4, 8] = 4
    """4 for NF4; 8 for integers with one scale per row."""
    double_quant: bool | None = None
    """Quantise the scales of the 4-bit blocks as well: 0.4 bits less per weight. null takes true with 4 bits."""

    @model_validator(mode="after")
    def _settings_fit_the_bits(self) -> Self:
        if self.bits == 8 and self.double_quant is not None:
            raise ValueError("double_quant has no effect with 8 bits, which have no blocks; remove it")
        if self.bits == 8 and self.use_dora:
            raise ValueError("use_dora does not work on 8-bit layers (bitsandbytes loses their scales); use 4 bits, or leave use_dora out")
        return self

    @property
    def quantisation(self) -> Quantisation:
        """NF4 or 8-bit integers."""
        return Quantisation(self.bits, self.bits == 4 and self.double_quant is not False)
