"""How near a decoding step comes to what this device can do: to the speed of a copy, and to that of a large product.

    python -m loadtests.roofline BUNDLE [--device cpu|cuda] [--rows 1 --rows 32] [--steps 24] [--out step.svg]

The bound is that of Williams, Waterman and Patterson 2009 (the roofline): a step takes at least as long as reading its
weights and caches once, and at least as long as its multiplications. Both speeds are measured here by graphs of one
operator, on the provider and with the threads that the step has. Rows are as long as the bundle's limits let them be,
and no row ends while it is measured.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path

import matplotlib as mpl
import numpy as np
import onnx
from matplotlib.figure import Figure
from onnx import TensorProto, helper

from loadtests.bars import hardware
from loadtests.steps import without_end
from models.bundle import Bundle, Precision, open_bundle
from models.errors import BundleError
from models.load import device, load_model, preferred
from models.session import open_plain, open_session
from models.task import Generation, Row
from service.gpu import visible_gpu

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SETTLING = 4
COPIED_BYTES = {"cpu": 2**27, "cuda": 2**31}
"""Of the array whose copy tells the bandwidth: more than any cache between processor and memory holds."""
SIDE = {"cpu": 1024, "cuda": 8192}
"""Of the matrices whose product tells the rate of multiplying."""
MEASURED_S = 0.5


@dataclass(frozen=True, slots=True)
class Speeds:
    """What the device can do: bytes moved and operations (two for a product with its sum) in a second."""

    bytes_per_s: float
    operations_per_s: float

    def bound_s(self, traffic: "Traffic") -> float:
        """Seconds that a step takes at least."""
        return max(traffic.bytes / self.bytes_per_s, traffic.operations / self.operations_per_s)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a step reads, and how much it computes."""

    bytes: float
    operations: float


@dataclass(frozen=True, slots=True)
class Line:
    """Steps of so many rows; `roofline` is the bound divided by the median."""

    rows: int
    p50_ms: float
    p99_ms: float
    tokens_per_s: float
    bound_ms: float
    roofline: float
    gpu_memory_bytes: float | None


def traffic(step: onnx.ModelProto, rows: int, source_tokens: int, target_tokens: float) -> Traffic:
    """Of a step of rows that have so many tokens each.

    Weights are the matrices that something else than a gather reads, each once; caches as far as they are filled. What
    a step writes, and the activations between its operators, are not counted: the bound is a lower one.
    """
    readers: dict[str, set[str]] = {}
    for node in step.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    matrices = [
        weight
        for weight in step.graph.initializer
        if len(weight.dims) == 2 and readers.get(weight.name, set()) - {"Gather"}
    ]
    weights_bytes = sum(prod(weight.dims) * _itemsize(weight.data_type) for weight in matrices)
    cache_bytes, cached = 0.0, 0.0
    for value in step.graph.input:
        tokens = {"past": target_tokens, "cros": source_tokens}.get(value.name[:4])
        if tokens is not None:
            kind = value.type.tensor_type
            numbers = kind.shape.dim[1].dim_value * kind.shape.dim[3].dim_value * tokens
            cached += numbers
            cache_bytes += numbers * _itemsize(kind.elem_type)
    products = sum(prod(weight.dims) for weight in matrices) + cached
    return Traffic(weights_bytes + rows * cache_bytes, 2.0 * rows * products)


def speeds(precision: Precision, threads: int) -> Speeds:
    """Measured on the provider in use: a copy, and a product of square matrices of the precision's numbers."""
    length, side = COPIED_BYTES[device()] // 4, SIDE[device()]
    half, byte, signed = TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT8
    operator, *kinds = {
        "fp32": ("MatMul", TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.FLOAT),
        "fp16": ("MatMul", half, half, half),
        "int8": ("MatMulInteger", byte, signed, TensorProto.INT32),
    }[precision]
    copied_s = _seconds("Neg", (length,), (TensorProto.FLOAT, TensorProto.FLOAT), threads)
    multiplied_s = _seconds(operator, (side, side), kinds, threads)
    return Speeds(2 * 4 * length / copied_s, 2 * side**3 / multiplied_s)


def _seconds(operator: str, shape: tuple[int, ...], kinds: Sequence[int], threads: int) -> float:
    """The best time of an operator on arrays of one shape; of the types of its inputs and its output."""
    *inputs, output = [helper.make_tensor_value_info(f"x{index}", kind, shape) for index, kind in enumerate(kinds)]
    node = helper.make_node(operator, [value.name for value in inputs], [output.name])
    graph = helper.make_graph([node], operator, inputs, [output])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.onnx"
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        path.write_bytes(model.SerializeToString())
        session = open_plain(path, threads=threads)
    specs = {**session.inputs, **session.outputs}
    places = {name: session.resident(shape, spec.dtype) for name, spec in specs.items()}
    written = places.pop(output.name)
    return min(_times(session.bind(places, {output.name: written}).run))


def _times(run: Callable[[], object]) -> list[float]:
    run()
    found: list[float] = []
    while sum(found) < MEASURED_S or len(found) < 3:
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return found


def measure(bundle: Bundle, precision: Precision, counts: Sequence[int], steps: int, threads: int) -> list[Line]:
    """A line for each number of rows.

    Raises:
        BundleError: the bundle does not decode.
    """
    if "step" not in bundle.graphs(precision).graphs:
        raise BundleError(f"{bundle.folder}: a roofline is drawn of decoding steps, this model is a single pass")
    limits, can = bundle.manifest.limits, speeds(precision, threads)
    steps = min(steps, limits.max_new_tokens - SETTLING - 1)
    graph = onnx.load(bundle.path(bundle.graphs(precision).graphs["step"].file), load_external_data=False)
    # All words are computed, with a shortlist or without: it is the step that is looked at.
    manifest = without_end(bundle).manifest.model_copy(update={"shortlist": None})
    whole = replace(bundle, manifest=manifest)
    vocabulary = open_session(bundle, precision, "step").outputs["logits"].shape[1]
    rng, lines, gpu = np.random.default_rng(0), [], visible_gpu() if device() == "cuda" else None
    for count in counts:
        model = load_model(whole, precision, slots=count, threads=threads, budget_tokens=limits.max_tokens)
        source_tokens = min(limits.max_tokens, 64)
        asked = Generation(SETTLING + steps + 1)
        for index in range(count):
            row = Row(rng.integers(0, int(vocabulary), source_tokens), generation=asked)
            model.admit({index: row})
        taken = []
        for at in range(SETTLING + steps):
            began = time.perf_counter()
            model.step()
            if at >= SETTLING:
                taken.append(time.perf_counter() - began)
        bound_s = can.bound_s(traffic(graph, count, source_tokens, SETTLING + steps / 2))
        median_s = statistics.median(taken)
        used = gpu.memory_used_bytes() if gpu else None
        p99_ms = 1e3 * float(np.quantile(taken, 0.99))
        lines.append(Line(count, 1e3 * median_s, p99_ms, count / median_s, 1e3 * bound_s, bound_s / median_s, used))
    return lines


def picture(lines: Sequence[Line], title: str, out: Path) -> None:
    """Step time over rows with the bound below it, as an SVG."""
    mpl.rcParams["svg.hashsalt"] = "heedful"
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    rows = [line.rows for line in lines]
    axes.loglog(rows, [line.p50_ms for line in lines], marker="o", markersize=4, label="a step, median")
    axes.loglog(rows, [line.bound_ms for line in lines], linestyle="--", label="the roofline of this device")
    axes.set_xticks(rows, [str(count) for count in rows])
    axes.set_xlabel("rows in a step")
    axes.set_ylabel("ms")
    axes.set_title(title, fontsize=9)
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(out, format="svg", metadata={"Date": None})


def _itemsize(kind: int) -> int:
    return int(helper.tensor_dtype_to_np_dtype(kind).itemsize)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.roofline", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default=device())
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"))
    parser.add_argument("--rows", type=int, action="append", help=f"may be repeated; {', '.join(map(str, ROWS))}")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="an SVG file")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    given = parser.parse_args(arguments)
    if given.device != device():
        sys.exit(f"roofline: --device {given.device} is not what ONNX Runtime computes on here, which is {device()}")
    try:
        bundle = open_bundle(given.bundle)
        precision: Precision = given.precision or preferred(bundle.manifest.precisions)
        lines = measure(bundle, precision, given.rows or ROWS, given.steps, given.threads)
    except BundleError as error:
        sys.exit(f"roofline: {error}")
    if given.json:
        print(json.dumps([asdict(line) for line in lines], indent=1))
    else:
        print("| rows | step p50 / p99, ms | tokens/s | roofline, ms | share of it | GPU memory |")
        print("|---|---|---|---|---|---|")
        for line in lines:
            memory = "" if line.gpu_memory_bytes is None else f"{line.gpu_memory_bytes / 1e9:.1f} GB"
            print(
                f"| {line.rows} | {line.p50_ms:.2f} / {line.p99_ms:.2f} | {line.tokens_per_s:,.0f}"
                f" | {line.bound_ms:.2f} | {line.roofline:.0%} | {memory} |"
            )
    if given.out:
        picture(lines, f"{bundle.manifest.name}, {precision}, {given.device}: {hardware()}", given.out)


if __name__ == "__main__":
    main()
