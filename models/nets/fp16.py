"""Weights and attention caches in float16, for GPUs; sums along layers, norms and softmax stay float32.

Layers add to a stream of hidden states that in some families grows beyond what float16 can hold (65,504), and a norm
or a softmax of rounded numbers loses most. Both are cheap beside the linear maps, which are what float16 halves.
"""

import torch
from torch import nn
from torch.nn import functional as F

from models.nets.layers import Float32Linear, with_parts


class Fp16Linear(nn.Module):
    """A linear map with float16 weights [out, in]; the bias [out] is made float16 here."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if bias is None else bias.detach().to(torch.float16))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float [..., in] to float16 [..., out]."""
        return F.linear(hidden.to(torch.float16), self.weight, self.bias)


class Fp16Embedding(nn.Module):
    """Rows of a float16 table [rows, width] as float32."""

    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [T] to float32 [T, width]."""
        return self.weight.index_select(0, ids).to(torch.float32)


def to_fp16(module: nn.Module) -> nn.Module:
    """A copy of the module with float16 in place of every linear map and embedding, but of those marked float32."""
    halves: dict[int, torch.Tensor] = {}

    def half(weight: torch.Tensor) -> torch.Tensor:
        if id(weight) not in halves:
            halves[id(weight)] = weight.detach().to(torch.float16)
        return halves[id(weight)]

    def halved(_name: str, part: nn.Module) -> nn.Module:
        if isinstance(part, nn.Linear) and not isinstance(part, Float32Linear):
            return Fp16Linear(half(part.weight), part.bias)
        return Fp16Embedding(half(part.weight)) if isinstance(part, nn.Embedding) else part

    return with_parts(module, halved)
