"""Writes the graphs of each precision of a checkpoint into a bundle's folder."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import onnx_ir
from torch import nn

from models.bundle import File, Graph, Graphs, Limits, Precision, Role, sha256_of
from models.export.checkpoint import Checkpoint
from models.export.errors import ExportError
from models.export.explain import explain_source
from models.export.graphs import Source, drop_output, save, trace
from models.export.recipe import Operators
from models.export.shortlisting import shortlisted_sources
from models.nets.fp16 import to_fp16
from models.nets.int8 import to_int8
from models.nets.standard import to_standard

BYTES_PER_PARAMETER: Mapping[Precision, float] = {"fp32": 4.2, "fp16": 2.4, "int8": 1.4}
"""On disk, with room for what is stored twice: joined projections, and positions in float32."""

Report: TypeAlias = Callable[[str], None]

_IN_PRECISION: Mapping[Precision, Callable[[nn.Module], nn.Module]] = {
    "fp32": lambda module: module,
    "fp16": to_fp16,
    "int8": to_int8,
}


def write_graphs(
    checkpoint: Checkpoint,
    limits: Limits,
    staged: Path,
    *,
    precisions: Sequence[Precision],
    explained: Collection[Precision],
    operators: Operators,
    shortlisted: bool = False,
    report: Report,
) -> dict[Precision, Graphs]:
    """Write `PRECISION/ROLE.onnx` and the weights that the graphs of a precision share.

    Args:
        explained: which of the precisions get the graph of `explain`, where the family has one.
        shortlisted: also the graphs that a bundle with a shortlist has.

    Raises:
        ExportError: the limits are beyond the checkpoint, or its family does not have a precision.
    """
    try:
        sources = checkpoint.sources(limits)
    except ValueError as error:
        raise ExportError(str(error)) from error
    possible = [name for name in _IN_PRECISION if all(name in source.precisions for source in sources.values())]
    if missing := [name for name in precisions if name not in possible]:
        raise ExportError(
            f"this checkpoint's graphs cannot be made in {', '.join(missing)}: export it with --precision"
            f" {' or '.join(possible)}"
        )
    written: dict[Precision, Graphs] = {}
    for precision in precisions:
        folder = staged / precision
        folder.mkdir()
        models = {}
        converted: dict[Role, Source] = {}
        for role, source in sources.items():
            module = _IN_PRECISION[precision](source.module)
            arguments = _in_float16(source.arguments) if precision == "fp16" else source.arguments
            if operators == "standard":
                module = to_standard(module)
            converted[role] = replace(source, module=module, arguments=arguments)
        if precision in explained and (explain := explain_source(converted)) is not None:
            converted["explain"] = explain
        if shortlisted:
            converted |= shortlisted_sources(converted["step"])
        for role, source in converted.items():
            report(f"tracing {role}, {precision}")
            models[role] = _traced(source, role, precision)
        weights = save(models, folder)
        graphs: dict[Role, Graph] = {
            role: Graph(
                file=describe(staged, folder / f"{role}.onnx"),
                inputs=tuple(source.inputs),
                outputs=tuple(str(output.name) for output in models[role].graph.outputs),
            )
            for role, source in converted.items()
        }
        written[precision] = Graphs(graphs=graphs, weights=describe(staged, weights) if weights else None)
    return written


def _traced(source: Source, role: Role, precision: Precision) -> onnx_ir.Model:
    try:
        model = trace(source)
    except Exception as error:  # torch raises its own
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ExportError(f"this checkpoint's {role} cannot be traced by torch: {reason}") from error
    # Only processors compute in int8, and there NumPy finds the likeliest of a large vocabulary in a ninth of the time
    # that ONNX Runtime's TopK takes.
    if precision == "int8" and role == "step":
        drop_output(model, "next")
    return model


def _in_float16(arguments: Any) -> Any:
    """The same arguments, nested as they are, with what is float32 halved: attention caches are."""
    if isinstance(arguments, Mapping):
        return {name: _in_float16(argument) for name, argument in arguments.items()}
    if isinstance(arguments, list | tuple):
        return type(arguments)(_in_float16(argument) for argument in arguments)
    return arguments.half() if arguments.is_floating_point() else arguments


def describe(folder: Path, path: Path) -> File:
    """A file in the bundle's folder as the manifest names it."""
    return File(path=path.relative_to(folder).as_posix(), sha256=sha256_of(path), bytes=path.stat().st_size)
