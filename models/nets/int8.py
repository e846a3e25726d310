"""int8 linear maps and embeddings, with one activation scale per row: a row's result never depends on its neighbours.

A scale for the whole batch, which dynamic quantization usually takes, lets one caller's outlier coarsen another's
numbers. Here each row is divided by its largest magnitude, quantized with a fixed scale, multiplied exactly in
integers and scaled back. Weights have one scale for each output column.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn

from models.nets.layers import with_parts

Multiply: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

LEVELS = 127
"""Of the largest magnitude, of a row or a weight."""
_SMALLEST = 1e-8


class Int8Table(nn.Module):
    """A matrix [rows, width] in int8, each row with its own scale; an embedding and a tied output layer share one."""

    values: torch.Tensor
    scales: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        scales = torch.linalg.vector_norm(weight, torch.inf, 1).clamp(min=_SMALLEST) / LEVELS
        self.register_buffer("values", (weight / scales[:, None]).round_().to(torch.int8))
        self.register_buffer("scales", scales)


class Int8Embedding(nn.Module):
    """Rows of an int8 table as float32."""

    def __init__(self, table: Int8Table) -> None:
        super().__init__()
        self.table = table

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [T] to float [T, width]."""
        values, scales = self.table.values.index_select(0, ids), self.table.scales.index_select(0, ids)
        return values.to(torch.float32) * scales[:, None]


def matmul_integer_to_float(
    levels: torch.Tensor, zero: torch.Tensor, step: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor
) -> torch.Tensor:
    """Multiply by ONNX Runtime's own operator.

    Args:
        levels: uint8 [rows, in]; `zero`, uint8 [], stands for 0, and `step`, float [], is its unit.
        weight: int8 [in, out], and the units of its columns, `scales`, float [out].

    Returns:
        float [rows, out].
    """
    product: torch.Tensor = torch.onnx.ops.symbolic(
        "com.microsoft::MatMulIntegerToFloat",
        [levels, weight, step, scales, zero],
        dtype=torch.float32,
        shape=(levels.shape[0], weight.shape[1]),
        version=1,
    )
    return product


def matmul_integer(
    levels: torch.Tensor, zero: torch.Tensor, step: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor
) -> torch.Tensor:
    """The same by operators of ONNX itself."""
    product: torch.Tensor = torch.onnx.ops.symbolic(
        "MatMulInteger", [levels, weight, zero], dtype=torch.int32, shape=(levels.shape[0], weight.shape[1])
    )
    return product.to(torch.float32) * (scales * step)


def levels_of(hidden: torch.Tensor, zero: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Float [rows, width] to levels around `zero`, of its dtype, and each row's largest magnitude, float [rows, 1]."""
    largest = hidden.abs().amax(-1, keepdim=True).clamp(min=_SMALLEST)
    levels: torch.Tensor = torch.onnx.ops.symbolic(
        "QuantizeLinear", [hidden / largest, torch.tensor(1 / LEVELS), zero], dtype=zero.dtype, shape=hidden.shape
    )
    return levels, largest


class Int8Linear(nn.Module):
    """A linear map by an operator on integers; it can be exported, not run in eager mode.

    Args:
        table: the weights [out, in], a row for each output.
        bias: float [out].
        transposed: keep the weights as [in, out], as the operator wants them. A table that is shared with an embedding
            stays as it is, and ONNX Runtime transposes it once while it loads.
    """

    weight: torch.Tensor
    scales: torch.Tensor

    def __init__(self, table: Int8Table, bias: torch.Tensor | None, *, transposed: bool) -> None:
        super().__init__()
        self.out_features, self.in_features = table.values.shape
        self.bias = bias
        self.transposed = transposed
        self.multiply: Multiply = matmul_integer_to_float
        self.register_buffer("weight", table.values.T.contiguous() if transposed else table.values)
        self.register_buffer("scales", table.scales)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float [rows, in] to float [rows, out]."""
        zero = torch.tensor(128, dtype=torch.uint8)
        levels, largest = levels_of(hidden, zero)
        weight = self.weight if self.transposed else self.weight.T
        scaled = self.multiply(levels, zero, torch.tensor(1 / LEVELS), weight, self.scales) * largest
        return scaled if self.bias is None else scaled + self.bias


def to_int8(module: nn.Module) -> nn.Module:
    """A copy of the module with int8 in place of every linear map and of every embedding of a vocabulary.

    What stays float32 is shared with the module, so that no second copy of a checkpoint fills the memory. Tables of
    positions and segments do: they are small, and every token reads them.
    """
    embedded = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    tables: dict[int, Int8Table] = {}

    def table(weight: torch.Tensor) -> Int8Table:
        if id(weight) not in tables:
            tables[id(weight)] = Int8Table(weight.detach())
        return tables[id(weight)]

    def quantized(name: str, part: nn.Module) -> nn.Module:
        if isinstance(part, nn.Linear):
            return Int8Linear(table(part.weight), part.bias, transposed=id(part.weight) not in embedded)
        if isinstance(part, nn.Embedding) and name == "tokens":
            return Int8Embedding(table(part.weight))
        return part

    return with_parts(module, quantized)
