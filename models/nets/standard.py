"""Decoder steps and int8 maps without ONNX Runtime's own operators: where those do not serve, and to test them by.

Inputs and outputs are those of the modules that are replaced, so that whoever runs the graph cannot tell. It takes
longer, since keys and values that are attended to are copied in every step, and it pads to the longest row, so that a
row's numbers agree with those that it has alone to rounding, not bit by bit.
"""

import torch
from torch import nn

from models.nets.int8 import Int8Linear, matmul_integer
from models.nets.layers import with_parts
from models.nets.packed import MASKED
from models.nets.step import Cache, CachedAttention


class StandardAttention(CachedAttention):
    """`CachedAttention` by ScatterElements, MatMul and Softmax. Eager mode can run it."""

    def forward(
        self,
        query: torch.Tensor,
        new: tuple[torch.Tensor, torch.Tensor] | None,
        cache: Cache,
        last: torch.Tensor,
        total: torch.Tensor,
        *,
        bias: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Cache]:
        """Attend, as `CachedAttention` does."""
        rows, width = query.shape[0], cache[0].shape[3]
        if new is None:
            query, *newest = query.chunk(3, -1)
        else:
            newest = list(new)
        place = last.long()[:, None, None, None].expand(-1, self.heads, 1, width)
        keys, values = (
            kept.scatter(2, place, part.reshape(rows, self.heads, 1, width).to(kept.dtype))
            for kept, part in zip(cache, newest, strict=True)
        )
        seen = torch.arange(total.item())
        query = query.view(rows, self.heads, 1, width) * self.scale
        scores = torch.matmul(query, keys.index_select(2, seen).transpose(2, 3))
        if bias is not None:
            scores = scores + bias
        hidden = torch.where(seen[None, :] <= last[:, None], 0.0, MASKED)[:, None, None, :]
        weights = torch.softmax(scores + hidden, -1).to(values.dtype)
        attended = torch.matmul(weights, values.index_select(2, seen))
        return attended.view(rows, self.heads * width), (keys, values)


def to_standard(module: nn.Module) -> nn.Module:
    """A copy of the module, float or int8, that shares its tensors and is exported without contrib operators."""

    def standard(_name: str, part: nn.Module) -> nn.Module:
        if isinstance(part, CachedAttention):
            return StandardAttention(heads=part.heads, scale=part.scale)
        if isinstance(part, Int8Linear):
            part.multiply = matmul_integer
        return part

    return with_parts(module, standard)
