import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from models.bundle import MANIFEST, open_bundle, sha256_of
from models.errors import BundleError
from models.packing import pack
from models.session import open_session, saturates
from models.task import Row
from tests.models.embedded import QUESTION_ANSWERING, RECOMMENDATION, opened, session

Change = Callable[[Path, dict[str, Any]], None]


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[Change], Path]:
    """A copy of a bundle after a change to its files or manifest, with hashes that are right again."""

    def make(change: Change) -> Path:
        folder = tmp_path / "bundle"
        shutil.copytree(RECOMMENDATION, folder)
        manifest = json.loads((folder / MANIFEST).read_text())
        change(folder, manifest)
        graphs = manifest["precisions"]["int8"]
        for file in (graphs["graphs"]["forward"]["file"], graphs["weights"]):
            path = folder / file["path"]
            if path.exists():
                file |= {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        (folder / MANIFEST).write_text(json.dumps(manifest))
        return folder

    return make


def no_graph(folder: Path, _manifest: dict[str, Any]) -> None:
    (folder / "int8/forward.onnx").write_bytes(b"not a graph")


def half_a_graph(folder: Path, _manifest: dict[str, Any]) -> None:
    path = folder / "int8/forward.onnx"
    path.write_bytes(path.read_bytes()[:-2000])


def short_weights(folder: Path, _manifest: dict[str, Any]) -> None:
    path = folder / "int8/weights.bin"
    path.write_bytes(path.read_bytes()[:-2000])


def unnamed_weights(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / "int8/weights.bin").rename(folder / "int8/other.bin")
    manifest["precisions"]["int8"]["weights"]["path"] = "int8/other.bin"


@pytest.mark.parametrize("change", [no_graph, half_a_graph, short_weights, unnamed_weights])
def test_what_onnx_runtime_refuses_is_a_broken_bundle(broken: Callable[[Change], Path], change: Change) -> None:
    bundle = open_bundle(broken(change))
    with pytest.raises(BundleError, match=r"forward\.onnx: ONNX Runtime cannot load this graph"):
        open_session(bundle, "int8", "forward")


@pytest.mark.parametrize(("kind", "names"), [("inputs", ["tokens", "lengths"]), ("outputs", ["logits"])])
def test_a_graph_with_another_signature_than_the_manifest_says_is_refused(
    broken: Callable[[Change], Path], kind: str, names: list[str]
) -> None:
    def change(_folder: Path, manifest: dict[str, Any]) -> None:
        manifest["precisions"]["int8"]["graphs"]["forward"][kind] = names

    bundle = open_bundle(broken(change))
    with pytest.raises(BundleError, match=f"the graph's {kind} are .*; the manifest says {', '.join(names)}"):
        open_session(bundle, "int8", "forward")


def test_a_role_that_the_bundle_lacks_is_named() -> None:
    with pytest.raises(BundleError, match="no int8 graph for step, the bundle carries forward"):
        open_session(opened(RECOMMENDATION), "int8", "step")


def test_specs_tell_fixed_sizes_from_varying_ones() -> None:
    forward = session(RECOMMENDATION, "forward")
    items = len(json.loads((RECOMMENDATION / "catalogue.json").read_text()))
    assert forward.inputs["pad"].shape == ("rows", "width")
    assert forward.outputs["scores"].shape == ("rows", items)
    assert forward.outputs["scores"].dtype == np.float32


def test_a_binding_reads_and_writes_the_bound_memory_each_time() -> None:
    forward = session(RECOMMENDATION, "forward")
    feeds = {
        "tokens": np.array([1, 2]),
        "positions": np.array([0, 1]),
        "lengths": np.array([2]),
        "pad": np.minimum(np.arange(16), 1)[None],
        "unpad": np.array([0, 1]),
    }
    scores = np.zeros_like(forward.run(feeds)["scores"])
    binding = forward.bind(feeds, {"scores": scores})
    for token in (1, 3):
        feeds["tokens"][0] = token
        binding.run()
        assert np.array_equal(scores, forward.run(feeds)["scores"])


def test_only_contiguous_memory_is_bound() -> None:
    forward = session(RECOMMENDATION, "forward")
    with pytest.raises(ValueError, match="C-contiguous"):
        forward.bind({"tokens": np.arange(10)[::2]}, {})


def test_memory_does_not_grow_with_the_shapes_that_come_by() -> None:
    forward = open_session(opened(QUESTION_ANSWERING), "int8", "forward")

    def resident_after(lengths: range) -> int:
        for length in lengths:
            forward.run(pack([Row(np.full(length, 5))]).feeds(forward.inputs))
        return psutil.Process().memory_info().rss

    before = resident_after(range(384, 385))  # the longest one, so that no room is lacking afterwards
    assert resident_after(range(200, 384, 8)) - before < 8 * 2**20


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "fma avx2", True),
        ("x86_64", "avx2 avx512f avx512bw avx512vl", True),
        ("x86_64", "avx2 avx512f avx512bw avx512vl avx512_vnni", False),
        ("x86_64", "avx2 avx_vnni", False),
        ("AMD64", "", True),
        ("aarch64", "asimd asimddp", False),
    ],
)
def test_sums_are_clipped_by_an_x86_without_vnni(machine: str, flags: str, expected: bool) -> None:
    cpuinfo = f"processor\t: 0\nmodel name\t: A processor\nflags\t\t: fpu sse4_1 {flags}\nbugs\t\t: none\n"
    assert saturates(machine, cpuinfo if flags else "") == expected


@pytest.mark.parametrize("clips", [True, False])
def test_products_are_exact_on_every_processor(monkeypatch: pytest.MonkeyPatch, clips: bool) -> None:
    """Weights as uint8 give the same bits as int8, where the processor can multiply by both."""
    monkeypatch.setattr("models.session._saturates_here", lambda: clips)
    told = open_session(opened(QUESTION_ANSWERING), "int8", "forward")
    entry = told._session.get_session_options().get_session_config_entry("session.x64quantprecision")
    assert entry == ("1" if clips else "0")
    tokens = np.random.default_rng(1).integers(1000, 2000, 60)
    feeds = pack([Row(tokens, np.zeros(60, np.int64))]).feeds(told.inputs)
    usual = session(QUESTION_ANSWERING, "forward").run(feeds)
    if clips or not saturates(platform.machine(), Path("/proc/cpuinfo").read_text()):
        assert all(np.array_equal(array, usual[name]) for name, array in told.run(feeds).items())
