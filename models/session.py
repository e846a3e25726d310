"""The only door to ONNX Runtime: opens one graph of a bundle, and runs it on NumPy arrays or memory of its device."""

import platform
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from models.bundle import Bundle, Graph, Precision, Role
from models.errors import BundleError, DeviceLost

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(uint8)": np.dtype(np.uint8),
}

_X86 = frozenset(("x86_64", "amd64", "i386", "i686"))
_VNNI = frozenset(("avx512_vnni", "avx_vnni"))

_LOST = re.compile(r"(?:CUDA|CUBLAS|CUDNN) failure (?!2:)\d+")
"""How ONNX Runtime tells of an error of CUDA, after which every further call in this process fails as well. Number 2 is
a lack of memory, which leaves everything as it was.
"""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a graph says of one input or output; a dimension is a number, or a name where it varies."""

    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Resident:
    """An array in the memory of the device that sessions compute on, which NumPy cannot read.

    Args:
        device: what ONNX Runtime calls it, "cpu" or "cuda".
        owner: keeps the memory.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: str
    owner: object

    def part(self, start: int, shape: Sequence[int], dtype: np.dtype[Any] | None = None) -> "Resident":
        """The same memory from element `start` on, read as another shape or as another type."""
        pointer = self.pointer + start * self.dtype.itemsize
        return replace(self, pointer=pointer, shape=tuple(shape), dtype=dtype or self.dtype)


Place: TypeAlias = NDArray[Any] | Resident
"""Memory of the host or of the device."""


class Binding:
    """Inputs and outputs of a graph at fixed addresses: each run reads and writes the same memory.

    The memory is borrowed by pointer, so what holds it is kept alive here. A session that does not compute on the host
    takes a copy of an array when it is bound, so there every run binds the inputs that are NumPy arrays once more.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: Mapping[str, Place],
        outputs: Mapping[str, Place],
        *,
        copies_inputs: bool,
    ) -> None:
        self._session = session
        self._places = (*inputs.values(), *outputs.values())
        if not all(place.flags.c_contiguous for place in self._places if isinstance(place, np.ndarray)):
            raise ValueError("only C-contiguous arrays can be bound")
        self._io = session.io_binding()
        self._copied: dict[str, NDArray[Any]] = {}
        for name, place in inputs.items():
            if copies_inputs and isinstance(place, np.ndarray):
                self._copied[name] = place
            else:
                self._io.bind_input(name, *_address(place))
        for name, place in outputs.items():
            self._io.bind_output(name, *_address(place))

    def run(self) -> None:
        """Compute the bound outputs from what the bound inputs hold now.

        Raises:
            DeviceLost: as all that computes.
        """
        with _noticing_loss():
            if self._copied:
                for name, array in self._copied.items():
                    self._io.bind_cpu_input(name, array)
                self._io.synchronize_inputs()
            self._session.run_with_iobinding(self._io)


class Session:
    """One loaded graph. Its arrays are described by `inputs` and `outputs`, in the order of the graph.

    Args:
        device: where it computes, as ONNX Runtime calls it.
    """

    def __init__(self, session: onnxruntime.InferenceSession, device: str = "cpu") -> None:
        self._session = session
        self._device = device
        self._copies_inputs = device != "cpu"
        self.inputs = {value.name: _spec(value) for value in session.get_inputs()}
        self.outputs = {value.name: _spec(value) for value in session.get_outputs()}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every output by name, in newly allocated arrays."""
        with _noticing_loss():
            return dict(zip(self.outputs, self._session.run(None, dict(feeds)), strict=True))

    def run_resident(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, Resident]:
        """As `run`, but the outputs stay on the device."""
        io = self._session.io_binding()
        with _noticing_loss():
            for name, array in feeds.items():
                io.bind_cpu_input(name, np.ascontiguousarray(array))
            for name in self.outputs:
                io.bind_output(name, self._device)
            io.synchronize_inputs()
            self._session.run_with_iobinding(io)
        return {
            name: Resident(value.data_ptr(), tuple(value.shape()), spec.dtype, self._device, value)
            for (name, spec), value in zip(self.outputs.items(), io.get_outputs(), strict=True)
        }

    def resident(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Resident:
        """Zeros on the device, from the memory that this session may take there."""
        value = self._session.create_ortvalue_from_shape_and_type(list(shape), dtype.type, self._device)
        value.update_inplace(np.zeros(shape, dtype))
        return Resident(value.data_ptr(), tuple(shape), dtype, self._device, value)

    def reads_on_device(self, names: Collection[str]) -> bool:
        """Whether these inputs are read by the device alone.

        They are not where ONNX Runtime leaves their operator to the CPU, since the device's provider lacks it for their
        type: what is bound on the device would then be copied once, when it is bound, and never again.
        """
        if self._device == "cpu":
            return False
        infos = zip(self.inputs, self._session.get_input_memory_infos(), strict=True)
        return all(info.name.lower() == self._device for name, info in infos if name in names)

    def bind(self, inputs: Mapping[str, Place], outputs: Mapping[str, Place]) -> Binding:
        """Fix where inputs are read and outputs are written; an input and an output may share their memory.

        Raises:
            ValueError: an array is not C-contiguous.
        """
        return Binding(self._session, inputs, outputs, copies_inputs=self._copies_inputs)


@contextmanager
def _noticing_loss() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if found := _LOST.search(str(error)):
            raise DeviceLost(f"the device does not compute any more: {found[0]}") from error
        raise


def _address(place: Place) -> tuple[str, int, type[Any], list[int], int]:
    """Where it is, as `IOBinding` takes it. A process sees one GPU, the one that Ray gave it, so its number is 0."""
    if isinstance(place, Resident):
        return place.device, 0, place.dtype.type, list(place.shape), place.pointer
    return "cpu", 0, place.dtype.type, list(place.shape), place.ctypes.data


def provider() -> str:
    """The execution provider that sessions use here: CUDA where ONNX Runtime has it, else the CPU."""
    available = onnxruntime.get_available_providers()
    return "CUDAExecutionProvider" if "CUDAExecutionProvider" in available else "CPUExecutionProvider"


def provider_options(memory_bytes: int | None) -> dict[str, str]:
    """What the CUDA provider is told: how far its arena may grow, and to grow by what is asked for, not by doubling."""
    limit = {} if memory_bytes is None else {"gpu_mem_limit": str(memory_bytes)}
    return {"device_id": "0", "arena_extend_strategy": "kSameAsRequested", **limit}


def open_session(
    bundle: Bundle,
    precision: Precision,
    role: Role,
    *,
    threads: int = 1,
    lean: bool = False,
    memory_bytes: int | None = None,
) -> Session:
    """Load one graph of an opened bundle.

    Threads do not spin while they wait: replicas share the cores of a machine, and a spinning thread takes them away
    from another replica.

    Args:
        lean: no second copy of the weights in the order in which the processor multiplies; a pass takes a third longer.
        memory_bytes: that this graph may take of a GPU.

    Raises:
        BundleError: the bundle lacks the graph, ONNX Runtime refuses it, or its signature is not the manifest's.
    """
    graphs = bundle.graphs(precision).graphs
    if role not in graphs:
        raise BundleError(f"{bundle.folder}: no {precision} graph for {role}, the bundle carries {', '.join(graphs)}")
    path = bundle.path(graphs[role].file)
    return open_graph(path, graphs[role], threads=threads, lean=lean, memory_bytes=memory_bytes)


def open_graph(
    path: Path, signature: Graph, *, threads: int = 1, lean: bool = False, memory_bytes: int | None = None
) -> Session:
    """Load the graph at `path` as `open_session` does, and hold it against the manifest's signature.

    Raises:
        BundleError: ONNX Runtime refuses the graph, or its inputs and outputs are not those of the signature.
    """
    session = open_plain(path, threads=threads, lean=lean, memory_bytes=memory_bytes)
    for kind, found, expected in (
        ("inputs", tuple(session.inputs), signature.inputs),
        ("outputs", tuple(session.outputs), signature.outputs),
    ):
        if found != expected:
            raise BundleError(
                f"{path}: the graph's {kind} are {', '.join(found)}; the manifest says {', '.join(expected)}"
            )
    return session


def saturates(machine: str, cpuinfo: str) -> bool:
    """Whether ONNX Runtime, by itself, clips sums of products of uint8 and int8 to 16 bits: on x86 without VNNI.

    Told of it, it makes uint8 of constant int8 factors while it loads, and takes a slower kernel that is exact.

    Args:
        machine: as `platform.machine` says it.
        cpuinfo: Linux's; one that tells nothing counts as a processor without VNNI.
    """
    return machine.lower() in _X86 and not _VNNI & set(cpuinfo.split())


@cache
def _saturates_here() -> bool:
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        cpuinfo = ""
    return saturates(platform.machine(), cpuinfo)


def open_plain(path: Path, *, threads: int = 1, lean: bool = False, memory_bytes: int | None = None) -> Session:
    """Load the graph at `path`, whatever its signature is.

    Nothing is kept of the shapes that come by. By itself ONNX Runtime keeps a plan for each of them and takes memory by
    it in one piece; rows side by side have thousands of shapes, so that the pieces fit each other badly.

    Raises:
        BundleError: ONNX Runtime refuses the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_prepacking", "1" if lean else "0")
    options.add_session_config_entry("session.x64quantprecision", "1" if _saturates_here() else "0")
    on_cuda = provider() == "CUDAExecutionProvider"
    cuda = [("CUDAExecutionProvider", provider_options(memory_bytes))] if on_cuda else []
    providers = [*cuda, "CPUExecutionProvider"]
    try:
        return Session(onnxruntime.InferenceSession(path, options, providers=providers), "cuda" if on_cuda else "cpu")
    except Exception as error:  # ONNX Runtime's exceptions have no common base class but Exception
        raise BundleError(f"{path}: ONNX Runtime cannot load this graph: {error}") from error


def _spec(value: Any) -> TensorSpec:
    if value.type not in _DTYPES:
        raise ValueError(f"{value.name} is a {value.type}, which no graph of a bundle uses")
    return TensorSpec(_DTYPES[value.type], tuple(value.shape))
