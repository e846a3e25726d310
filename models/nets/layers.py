"""What encoder and decoder layers of every family are made of: where the norm stands, and the feed-forward network."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

Activation: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
Sublayer: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

_ACTIVATIONS: dict[str, Activation] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu, "swish": F.silu}


class Residual(nn.Module):
    """A sublayer added to its input; the norm stands behind the sum (post-norm) or before the sublayer (pre-norm)."""

    def __init__(self, norm: nn.Module, *, norm_first: bool) -> None:
        super().__init__()
        self.norm, self.norm_first = norm, norm_first

    def forward(self, hidden: torch.Tensor, sublayer: Sublayer) -> torch.Tensor:
        """Float [..., width] to the same shape."""
        if self.norm_first:
            return hidden + sublayer(self.norm(hidden))
        normed: torch.Tensor = self.norm(hidden + sublayer(hidden))
        return normed


class FeedForward(nn.Module):
    """Two linear maps with an activation between them."""

    def __init__(self, inner: nn.Linear, outer: nn.Linear, activation: Activation) -> None:
        super().__init__()
        self.inner, self.outer, self.activation = inner, outer, activation

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float [..., width] to the same shape."""
        out: torch.Tensor = self.outer(self.activation(self.inner(hidden)))
        return out


class Embeddings(nn.Module):
    """Token, position and segment embeddings of a packed sequence or of one decoder step.

    Args:
        tokens: of the vocabulary.
        scale: multiplies token embeddings.
        positions: row i belongs to position i; None where attention knows positions by itself.
        segments: None where the model knows only one text.
        norm: of the sum; None where the family has none.
    """

    def __init__(
        self,
        tokens: nn.Embedding,
        *,
        scale: float = 1.0,
        positions: nn.Embedding | None = None,
        segments: nn.Embedding | None = None,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.tokens, self.scale, self.positions, self.segments, self.norm = tokens, scale, positions, segments, norm

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, segments: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Ids [T] and positions [T] to float [T, width]; `segments` [T] is read where there are segment embeddings."""
        hidden: torch.Tensor = self.tokens(tokens)
        if self.scale != 1.0:
            hidden = hidden * self.scale
        if self.segments is not None:
            hidden = hidden + self.segments(segments)
        if self.positions is not None:
            hidden = hidden + self.positions(positions)
        return hidden if self.norm is None else self.norm(hidden)


def joined(*layers: nn.Linear) -> nn.Linear:
    """One linear map whose output is those of the layers side by side: one matrix product instead of several."""
    whole = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers), layers[0].bias is not None)
    with torch.no_grad():
        whole.weight.copy_(torch.cat([layer.weight for layer in layers]))
        if whole.bias is not None:
            whole.bias.copy_(torch.cat([layer.bias for layer in layers]))
    return whole


def table(weight: torch.Tensor) -> nn.Embedding:
    """An embedding with a copy of these rows [positions, width]."""
    rows, width = weight.shape
    return nn.Embedding(rows, width, _weight=weight.detach().clone())


def first_positions(weight: torch.Tensor, length: int) -> nn.Embedding:
    """The first `length` rows of a table of positions.

    Raises:
        ValueError: the table is shorter.
    """
    if length > len(weight):
        raise ValueError(f"the checkpoint has {len(weight)} positions, {length} were asked for")
    return table(weight[:length])


def activation_of(name: str) -> Activation:
    """The activation that transformers calls by this name.

    Raises:
        ValueError: it is not known here.
    """
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation {name!r} is not one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]
