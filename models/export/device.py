"""Writes the graphs that move rows on a device, once for all bundles: `python -m models.export.device`."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from models.moves import COPY, PICK


def graphs() -> dict[Path, onnx.ModelProto]:
    """Each graph under its path."""
    source = _value("from", TensorProto.INT32, "rows", "words")
    sources = _value("sources", TensorProto.INT64, "moves")
    picked = _value("picked", TensorProto.INT32, "moves", "words")
    to, moved = (_value(name, TensorProto.INT32, "slots", "words") for name in ("to", "moved"))
    targets = _value("targets", TensorProto.INT64, "moves", 1)
    gather = helper.make_node("Gather", ["from", "sources"], ["picked"])
    scatter = helper.make_node("ScatterND", ["to", "targets", "picked"], ["moved"])
    return {
        PICK: _model("pick", [gather], [source, sources], [picked]),
        COPY: _model("copy", [gather, scatter], [source, to, sources, targets], [moved]),
    }


def _value(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    name: str, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, name, inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    for path, model in graphs().items():
        path.write_bytes(model.SerializeToString())
