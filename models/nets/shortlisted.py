"""A decoder step whose output layer is an input, and the graph that gives the output layer's words out.

What runs them gathers the words that the running rows may write, which changes only when rows join, and so multiplies
by thousands of words where the vocabulary has tens of thousands.
"""

import torch
from torch import nn
from torch.nn import functional as F

from models.nets.fp16 import Fp16Linear
from models.nets.int8 import LEVELS, Int8Linear, levels_of
from models.nets.step import Cache, DecoderStep

_ZERO = 128
"""What stands for 0 in weights of unsigned bytes."""


class Words(nn.Module):
    """Rows of an output layer, of any precision."""

    def __init__(self, head: nn.Linear | Int8Linear | Fp16Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, words: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Ids int64 [n] to the inputs of `ShortlistedStep` that belong to these words.

        Returns:
            `head_bias` float32 [n]; `head_weight` [n, width], for int8 as uint8 around 128; for int8 `head_scales`,
            float32 [n], the unit of the product with a row of int8 levels.
        """
        head = self.head
        bias = (words * 0).to(torch.float32) if head.bias is None else head.bias.index_select(0, words)
        bias = bias.to(torch.float32)
        if not isinstance(head, Int8Linear):
            return bias, head.weight.index_select(0, words)
        weight = head.weight.index_select(1, words).T if head.transposed else head.weight.index_select(0, words)
        scales = head.scales.index_select(0, words) * torch.tensor(1 / LEVELS)
        return bias, (weight.to(torch.int32) + _ZERO).to(torch.uint8), scales


class ShortlistedStep(nn.Module):
    """As a decoder step, of any precision, that multiplies by the words it is given instead of by all.

    Weights are the left factor of the integer product: so they lie word by word, as they are gathered, and only the few
    rows of activations have to be transposed.
    """

    def __init__(self, decoder: DecoderStep) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        *,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        total: torch.Tensor,
        source_lengths: torch.Tensor,
        source_total: torch.Tensor,
        source_last: torch.Tensor,
        past: list[Cache],
        cross: list[Cache],
        head_weight: torch.Tensor,
        allowed: torch.Tensor,
        head_scales: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, list[Cache], list[Cache]]:
        """As `DecoderStep.forward`.

        Args:
            head_weight: [words, width], as `Words` gives it.
            allowed: float32 [rows, words], the word's bias, or -inf where the row must not write it.
            head_scales: float32 [words] for int8, else None.

        Returns:
            `next` int64 [rows, 2], the columns of the two largest logits; `logits` float32 [rows, words]; the caches.
        """
        hidden, presents, crosses = self.decoder.states(
            tokens=tokens,
            positions=positions,
            total=total,
            source_lengths=source_lengths,
            source_total=source_total,
            source_last=source_last,
            past=past,
            cross=cross,
        )
        if head_scales is None:
            product = F.linear(hidden.to(head_weight.dtype), head_weight).to(torch.float32)
        else:
            product = _int8_product(hidden, head_weight, head_scales)
        logits = product + allowed
        return torch.topk(logits, 2, -1)[1], logits, presents, crosses


def _int8_product(hidden: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Bit by bit what `Int8Linear` gives for these words, before its bias.

    But not on an x86 without VNNI, where ONNX Runtime clips sums (see `models.session.saturates`) and mends that for
    constant int8 factors alone: here the activations are the int8 factor, so that logits are off by some percent.
    """
    levels, largest = levels_of(hidden, torch.tensor(0, dtype=torch.int8))
    zero = torch.tensor(_ZERO, dtype=torch.uint8)
    product: torch.Tensor = torch.onnx.ops.symbolic(
        "MatMulInteger", [weight, levels.T, zero], dtype=torch.int32, shape=(weight.shape[0], hidden.shape[0])
    )
    return product.to(torch.float32).T * scales * largest
