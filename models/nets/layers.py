"""What encoders and decoders of every family are put together from: norms, feed-forward networks, embeddings."""

import copy
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

Activation: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
Sublayer: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
}


class RmsNorm(nn.Module):
    """Divides by the root mean square and scales; neither mean nor bias (Zhang and Sennrich 2019, arXiv 1910.07467).

    Args:
        weight: float [width].
        epsilon: added to the mean square.
    """

    def __init__(self, weight: torch.Tensor, epsilon: float) -> None:
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(weight.detach().clone()), epsilon

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float [..., width] to the same shape."""
        # Written as a quotient: ONNX Runtime fuses that into one kernel, and a product with rsqrt not.
        return hidden / torch.sqrt(hidden.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weight


class Unsupported(ValueError):
    """A checkpoint has a part that the modules here do not have."""


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


class GatedFeedForward(nn.Module):
    """A feed-forward network whose inner values are multiplied by an activated gate (Shazeer 2020, arXiv 2002.05202).

    Args:
        gate_and_inner: [width] to [2 x inner width], the gate first.
    """

    def __init__(self, gate_and_inner: nn.Linear, outer: nn.Linear, activation: Activation) -> None:
        super().__init__()
        self.gate_and_inner, self.outer, self.activation = gate_and_inner, outer, activation

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float [..., width] to the same shape."""
        gate, inner = self.gate_and_inner(hidden).chunk(2, -1)
        out: torch.Tensor = self.outer(self.activation(gate) * inner)
        return out


class DistanceBias(nn.Module):
    """What attention adds to a score for the distance between key and query; far distances are all alike.

    The buckets that T5 puts distances into (Raffel et al. 2020, arXiv 1910.10683) are unfolded here to one value for
    each distance, so that no graph computes a logarithm that rounds to another bucket than the checkpoint's.

    Args:
        values: float [heads, 2 x reach + 1]; column `reach + d` belongs to a key that stands d behind its query.
    """

    values: torch.Tensor

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.reach = values.shape[1] // 2
        self.register_buffer("values", values.detach().clone())

    def forward(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Positions, int64 [queries] and [keys], to float [heads, queries, keys]."""
        distances = torch.clamp(keys[None, :] - queries[:, None], -self.reach, self.reach)
        found = self.values.index_select(1, (distances + self.reach).reshape(-1))
        return found.view(-1, *distances.shape)


class Embeddings(nn.Module):
    """Token, position and segment embeddings of a packed sequence or of one decoder step.

    Args:
        tokens: of the vocabulary.
        scale: multiplies token embeddings.
        positions: row i belongs to position i; None where attention knows positions by itself.
        segments: None where the model knows only one text.
        norm: of the sum, with a projection to the width of the layers where there is one; None where there is neither.
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


class PositionsWithoutPadding(Embeddings):
    """Embeddings whose positions count only tokens that are not padding, as RoBERTa's and M2M100's do.

    A caller may write `<pad>` in his text: it keeps row 0 of the table, and the next token takes the next position.
    """

    def __init__(
        self,
        tokens: nn.Embedding,
        *,
        positions: nn.Embedding,
        padding_token: int,
        scale: float = 1.0,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__(tokens, scale=scale, positions=positions, norm=norm)
        self.padding_token = padding_token

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, segments: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Ids [T] and positions [T] to float [T, width]."""
        counts = (tokens != self.padding_token).to(torch.int64)
        until = torch.cumsum(counts, 0)
        first = torch.arange(tokens.shape[0]) - positions
        return super().forward(tokens, (until - (until - counts).index_select(0, first)) * counts, segments)


class Float32Linear(nn.Linear):
    """A linear map that stays float32 among float16 ones, because what it gives leaves the range of float16."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float [..., in] to float32 [..., out]."""
        return super().forward(hidden.to(torch.float32))


def in_float32(layer: nn.Linear) -> Float32Linear:
    """The same map, of the same parameters, that no float16 graph halves."""
    wide = Float32Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    wide.weight, wide.bias = layer.weight, layer.bias
    return wide


def joined(*layers: nn.Linear) -> nn.Linear:
    """One linear map whose output is those of the layers side by side: one matrix product instead of several."""
    whole = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers), layers[0].bias is not None)
    with torch.no_grad():
        whole.weight.copy_(torch.cat([layer.weight for layer in layers]))
        if whole.bias is not None:
            whole.bias.copy_(torch.cat([layer.bias for layer in layers]))
    return whole


def vocabulary(weight: nn.Parameter) -> nn.Embedding:
    """An embedding of this very parameter [words, width]: what a checkpoint ties stays tied."""
    rows, width = weight.shape
    embedding = nn.Embedding(rows, width, device="meta")
    embedding.weight = weight
    return embedding


def output_layer(weight: nn.Parameter, bias: torch.Tensor | None = None) -> nn.Linear:
    """A linear map of this very parameter [words, width] with a copy of the bias [words]."""
    rows, width = weight.shape
    head = nn.Linear(width, rows, bias is not None, device="meta")
    head.weight = weight
    if bias is not None:
        head.bias = nn.Parameter(bias.detach().clone())
    return head


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
        Unsupported: it is not known here.
    """
    if name not in _ACTIVATIONS:
        raise Unsupported(f"activation {name!r} is not one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def with_parts(module: nn.Module, part_for: Callable[[str, nn.Module], nn.Module]) -> nn.Module:
    """A copy of the module with other parts, which shares every tensor, so that no second checkpoint fills the memory.

    Args:
        part_for: from the name under which a part is held, and the part, to what stands there in the copy.
    """
    result = copy.deepcopy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})
    for parent in list(result.modules()):
        for name, part in list(parent.named_children()):
            setattr(parent, name, part_for(name, part))
    return result
