"""The bound below a decoding step: its traffic as counted by hand, and the command on this processor."""

import json
from pathlib import Path

import onnx
import pytest

from loadtests.roofline import Speeds, Traffic, main, traffic
from models.load import device
from tests.models.embedded import QUESTION_ANSWERING, TRANSLATION


def test_the_slower_of_reading_and_multiplying_bounds_a_step() -> None:
    can = Speeds(bytes_per_s=100.0, operations_per_s=1000.0)
    assert can.bound_s(Traffic(bytes=50.0, operations=100.0)) == 0.5
    assert can.bound_s(Traffic(bytes=50.0, operations=2000.0)) == 2.0


def test_traffic_is_the_matrices_once_and_the_filled_caches_of_each_row() -> None:
    """Two layers of width 256 with 1,024 inside and 8,000 words, int8, caches in float32."""
    step = onnx.load(TRANSLATION / "int8/step.onnx", load_external_data=False)
    weights = 2 * (256 * (768 + 256 + 256 + 256) + 2 * 256 * 1024) + 8000 * 256
    cached = 2 * 2 * 256 * (64 + 16)
    for rows in (1, 32):
        found = traffic(step, rows, 64, 16)
        assert found.bytes == weights + rows * 4 * cached
        assert found.operations == 2 * rows * (weights + cached)


@pytest.mark.skipif(device() != "cpu", reason="measures a processor")
def test_it_measures_this_processor_and_draws_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadtests.roofline.MEASURED_S", 0.0)
    monkeypatch.setattr("loadtests.roofline.COPIED_BYTES", {"cpu": 2**20})
    monkeypatch.setattr("loadtests.roofline.SIDE", {"cpu": 64})
    picture = tmp_path / "step.svg"
    main([str(TRANSLATION), "--rows", "1", "--rows", "4", "--steps", "3", "--json", "--out", str(picture)])
    lines = json.loads(capsys.readouterr().out)
    assert [line["rows"] for line in lines] == [1, 4]
    for line in lines:
        assert 0 < line["p50_ms"] <= line["p99_ms"]
        assert line["roofline"] == pytest.approx(line["bound_ms"] / line["p50_ms"])
        assert line["gpu_memory_bytes"] is None
    assert picture.read_text().startswith("<?xml")
    for arguments, said in (
        ([str(TRANSLATION), "--device", "cuda"], "--device cuda is not what ONNX Runtime computes on here"),
        ([str(QUESTION_ANSWERING)], "this model is a single pass"),
    ):
        with pytest.raises(SystemExit, match=said):
            main(arguments)
