"""The only door to ONNX Runtime: opens one graph of a bundle, and runs it on NumPy arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from models.bundle import Bundle, Graph, Precision, Role
from models.errors import BundleError

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(uint8)": np.dtype(np.uint8),
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a graph says of one input or output; a dimension is a number, or a name where it varies."""

    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]


class Binding:
    """Inputs and outputs of a graph at fixed addresses: each run reads and writes the same NumPy memory.

    The memory is borrowed by pointer, so the arrays are kept alive here.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
    ) -> None:
        self._session = session
        self._arrays = (*inputs.values(), *outputs.values())
        if not all(array.flags.c_contiguous for array in self._arrays):
            raise ValueError("only C-contiguous arrays can be bound")
        self._io = session.io_binding()
        for name, array in inputs.items():
            self._io.bind_input(name, "cpu", 0, array.dtype.type, list(array.shape), array.ctypes.data)
        for name, array in outputs.items():
            self._io.bind_output(name, "cpu", 0, array.dtype.type, list(array.shape), array.ctypes.data)

    def run(self) -> None:
        """Compute the bound outputs from what the bound inputs hold now."""
        self._session.run_with_iobinding(self._io)


class Session:
    """One loaded graph. Its arrays are described by `inputs` and `outputs`, in the order of the graph."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self.inputs = {value.name: _spec(value) for value in session.get_inputs()}
        self.outputs = {value.name: _spec(value) for value in session.get_outputs()}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every output by name, in newly allocated arrays."""
        return dict(zip(self.outputs, self._session.run(None, dict(feeds)), strict=True))

    def bind(self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> Binding:
        """Fix where inputs are read and outputs are written; an input and an output may share their memory.

        Raises:
            ValueError: an array is not C-contiguous.
        """
        return Binding(self._session, inputs, outputs)


def provider() -> str:
    """The execution provider that sessions use here: CUDA where ONNX Runtime has it, else the CPU."""
    available = onnxruntime.get_available_providers()
    return "CUDAExecutionProvider" if "CUDAExecutionProvider" in available else "CPUExecutionProvider"


def open_session(bundle: Bundle, precision: Precision, role: Role, *, threads: int = 1, lean: bool = False) -> Session:
    """Load one graph of an opened bundle.

    Threads do not spin while they wait: replicas share the cores of a machine, and a spinning thread takes them away
    from another replica.

    Args:
        lean: no second copy of the weights in the order in which the processor multiplies; a pass takes a third longer.

    Raises:
        BundleError: the bundle lacks the graph, ONNX Runtime refuses it, or its signature is not the manifest's.
    """
    graphs = bundle.graphs(precision).graphs
    if role not in graphs:
        raise BundleError(f"{bundle.folder}: no {precision} graph for {role}, the bundle carries {', '.join(graphs)}")
    return open_graph(bundle.path(graphs[role].file), graphs[role], threads=threads, lean=lean)


def open_graph(path: Path, signature: Graph, *, threads: int = 1, lean: bool = False) -> Session:
    """Load the graph at `path` as `open_session` does, and hold it against the manifest's signature.

    Raises:
        BundleError: ONNX Runtime refuses the graph, or its inputs and outputs are not those of the signature.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_prepacking", "1" if lean else "0")
    providers = list(dict.fromkeys((provider(), "CPUExecutionProvider")))
    try:
        session = Session(onnxruntime.InferenceSession(path, options, providers=providers))
    except Exception as error:  # ONNX Runtime's exceptions have no common base class but Exception
        raise BundleError(f"{path}: ONNX Runtime cannot load this graph: {error}") from error
    for kind, found, expected in (
        ("inputs", tuple(session.inputs), signature.inputs),
        ("outputs", tuple(session.outputs), signature.outputs),
    ):
        if found != expected:
            raise BundleError(
                f"{path}: the graph's {kind} are {', '.join(found)}; the manifest says {', '.join(expected)}"
            )
    return session


def _spec(value: Any) -> TensorSpec:
    if value.type not in _DTYPES:
        raise ValueError(f"{value.name} is a {value.type}, which no graph of a bundle uses")
    return TensorSpec(_DTYPES[value.type], tuple(value.shape))
