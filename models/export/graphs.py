"""Torch modules to ONNX graphs: tracing, the names of inputs, outputs and dimensions, and weights that graphs share."""

import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx_ir
import torch
from onnxscript import optimizer
from torch import nn

from models.bundle import Precision, Role
from models.nets.copying import CopyingEncoder, CopyingStep
from models.nets.packed import CrossAttentionEncoder
from models.nets.step import DecoderStep
from models.packing import pack, pad
from models.task import Row

OPSET = 20
WEIGHTS_FILE = "weights.bin"
INLINE_BYTES = 1024
ALIGNMENT_BYTES = 64

Dims: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A module with what tracing it takes.

    Args:
        arguments: example keyword arguments of `forward`, in the order of the graph's inputs.
        inputs: name and dimensions of each input, a string where a dimension varies.
        outputs: the same of each output.
        precisions: what the module can be exported in.
    """

    module: nn.Module
    arguments: Mapping[str, Any]
    inputs: Mapping[str, Dims]
    outputs: Mapping[str, Dims]
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")


def packed_source(module: nn.Module, outputs: Mapping[str, Dims], *, segments: bool = False) -> Source:
    """A module on packed rows."""
    inputs: dict[str, Dims] = {"tokens": ("tokens",), "positions": ("tokens",)}
    if segments:
        inputs["segments"] = ("tokens",)
    inputs |= {"lengths": ("rows",), "pad": ("rows", "width"), "unpad": ("tokens",)}
    example = pack([Row(torch.arange(length).numpy()) for length in (5, 19, 3)])
    arguments = {name: torch.from_numpy(array) for name, array in example.feeds(inputs).items()}
    return Source(module, arguments, inputs, outputs)


def padded_source(module: nn.Module, outputs: Mapping[str, Dims], *, segments: bool, masked: bool) -> Source:
    """A module on padded rows, or on rows of one length where it does not know which tokens are padding."""
    inputs: dict[str, Dims] = {"padded_tokens": ("rows", "width")}
    if segments:
        inputs["padded_segments"] = ("rows", "width")
    if masked:
        inputs["lengths"] = ("rows",)
    example = pad([Row(torch.arange(length).numpy()) for length in (19, 5, 12)])
    arguments = {name: torch.from_numpy(array) for name, array in example.feeds(inputs).items()}
    return Source(module, arguments, inputs, outputs, precisions=("fp32",))


def encoder_source(encoder: CrossAttentionEncoder | CopyingEncoder) -> Source:
    """The encoder of an encoder-decoder."""
    outputs: dict[str, Dims] = {"cross": ("tokens", 2 * encoder.layers, encoder.heads, encoder.head_width)}
    if isinstance(encoder, CopyingEncoder):
        outputs |= {"copy_keys": ("tokens", encoder.copy_width), "source_tokens": ("tokens",)}
    return packed_source(encoder, outputs)


def step_source(step: DecoderStep | CopyingStep, *, layers: int, heads: int, width: int) -> Source:
    """The decoder step; `width` is that of one head."""
    rows, source, target = 3, 7, 9
    caches = [f"{kind}_{index}" for index in range(layers) for kind in "kv"]
    past: Dims = ("rows", heads, "target_length", width)
    cross: Dims = ("rows", heads, "source_length", width)
    inputs: dict[str, Dims] = {
        "tokens": ("rows",),
        "positions": ("rows",),
        "total": (),
        "source_lengths": ("rows",),
        "source_total": (),
        "source_last": ("rows", 2 * layers, heads, width),
    }
    arguments: dict[str, Any] = {
        "tokens": torch.zeros(rows, dtype=torch.int64),
        "positions": torch.tensor([2, 4, 3], dtype=torch.int32),
        "total": torch.tensor(5, dtype=torch.int32),
        "source_lengths": torch.tensor([7, 5, 6], dtype=torch.int32),
        "source_total": torch.tensor(7, dtype=torch.int32),
        "source_last": torch.zeros(rows, 2 * layers, heads, width),
        "past": [_example_cache(rows, heads, target, width) for _ in range(layers)],
        "cross": [_example_cache(rows, heads, source, width) for _ in range(layers)],
    }
    kept = {f"past_{name}": past for name in caches} | {f"cross_{name}": cross for name in caches}
    inputs |= kept
    if isinstance(step, CopyingStep):
        copy_width = step.pointer.key.out_features
        inputs |= {"copy_keys": ("rows", "source_length", copy_width), "source_tokens": ("rows", "source_length")}
        arguments["copy_keys"] = torch.zeros(rows, source, copy_width)
        arguments["source_tokens"] = torch.zeros(rows, source, dtype=torch.int64)
    outputs: dict[str, Dims] = {"next": ("rows",), "logits": ("rows", step.head.out_features)}
    outputs |= {f"present_{name}": dims for name, dims in kept.items()}
    return Source(step, arguments, inputs, outputs)


def trace(source: Source) -> onnx_ir.Model:
    """The module as an ONNX graph without a trace of where it was made: equal modules give equal bytes."""
    source.module.requires_grad_(requires_grad=False)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            source.module,
            kwargs=dict(source.arguments),
            dynamic_shapes=_dynamic_shapes(source),
            input_names=list(source.inputs),
            output_names=list(source.outputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model = program.model
    for values, named in ((model.graph.inputs, source.inputs), (model.graph.outputs, source.outputs)):
        for value, (name, dims) in zip(values, named.items(), strict=True):
            value.name, value.shape = name, onnx_ir.Shape(dims)
    _forget_origin(model)
    _let_go()
    return model


def drop_output(model: onnx_ir.Model, name: str) -> None:
    """Take an output from a graph, and whatever was computed for it alone."""
    model.graph.outputs.remove(next(value for value in model.graph.outputs if value.name == name))
    optimizer.remove_unused_nodes(model)


def _let_go() -> None:
    """Show the optimizer a graph of one node: its rules keep the last that they saw, and so a whole model's weights."""
    given = onnx_ir.val("given", onnx_ir.DataType.FLOAT, ())
    node = onnx_ir.node("Identity", [given])
    graph = onnx_ir.Graph([given], node.outputs, nodes=[node], opset_imports={"": OPSET})
    optimizer.optimize(onnx_ir.Model(graph, ir_version=9))


def save(models: Mapping[Role, onnx_ir.Model], folder: Path) -> Path | None:
    """Write `ROLE.onnx` for each graph and the weights that they share; equal weights are written once.

    Returns:
        The file of weights, None where the graphs hold nothing but small tensors.
    """
    path, offsets = folder / WEIGHTS_FILE, dict[bytes, int]()
    with path.open("wb") as stream:
        for model in models.values():
            for initializer in model.graph.initializers.values():
                tensor = initializer.const_value
                if tensor is not None and tensor.nbytes >= INLINE_BYTES:
                    initializer.const_value = _written(tensor, stream, offsets, initializer.name or "")
    for role, model in models.items():
        onnx_ir.save(model, folder / f"{role}.onnx")
    if not offsets:
        path.unlink()
        return None
    return path


def _written(
    tensor: onnx_ir.TensorProtocol, stream: BufferedWriter, offsets: dict[bytes, int], name: str
) -> onnx_ir.ExternalTensor:
    """The tensor as a place in the file of weights; `offsets` knows what stands there, by its hash."""
    content = np.ascontiguousarray(tensor.numpy())
    key = hashlib.sha256(content.data).digest()
    if key not in offsets:
        offsets[key] = stream.seek(-(-stream.tell() // ALIGNMENT_BYTES) * ALIGNMENT_BYTES)
        stream.write(content.data)
    shape = onnx_ir.Shape(tensor.shape.numpy())
    where = Path(stream.name)
    return onnx_ir.ExternalTensor(
        where.name, offsets[key], content.nbytes, tensor.dtype, shape=shape, name=name, base_dir=where.parent
    )


def _forget_origin(model: onnx_ir.Model) -> None:
    """Drop stack traces and file names that the exporter attaches to every part."""
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in model.graph:
        node.doc_string = None
        node.metadata_props.clear()
        values.extend(node.outputs)
    for value in values:
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.doc_string = model.graph.doc_string = None


def _example_cache(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tensors: were it one twice, the traced graph would read the keys as values."""
    return torch.zeros(shape), torch.zeros(shape)


def _dynamic_shapes(source: Source) -> dict[str, Any]:
    """For each argument, which of its dimensions vary; nested as the arguments are."""
    dims = iter(source.inputs.values())

    def varying(argument: Any) -> Any:
        if isinstance(argument, list | tuple):
            return type(argument)(varying(part) for part in argument)
        return {axis: torch.export.Dim.DYNAMIC for axis, dim in enumerate(next(dims)) if isinstance(dim, str)}

    return {name: varying(argument) for name, argument in source.arguments.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes on its own deprecations, which are nothing that a user could act on."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
