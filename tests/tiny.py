"""Recommendation bundles of a few kilobytes, made in a moment, with a forward pass as slow as a test needs it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

ITEMS = 50
WIDTH = 1024
FIRST_ITEM = 1  # the token of the first item; 0 is none


def write_bundle(
    folder: Path, name: str, *, products: int = 0, seed: int = 0, poison: int | None = None, **manifest: Any
) -> Path:
    """Write a bundle that scores the items after the last one of a history.

    Args:
        folder: where; made if need be.
        name: of the model.
        products: so many products of 1024 x 1024 matrices go with each pass, about 20 ms each on one core.
        seed: of the scores.
        poison: an item on which the graph fails, together with all rows of its pass.
        manifest: fields of the manifest to set otherwise.
    """
    folder.mkdir(parents=True)
    (folder / "forward.onnx").write_bytes(_graph(products, seed, poison))
    catalogue = [{"item": f"i{index}", "title": f"Thing {index}"} for index in range(ITEMS)]
    (folder / "catalogue.json").write_text(json.dumps(catalogue))
    graph = {"file": file(folder, "forward.onnx"), "inputs": ["tokens", "starts"], "outputs": ["scores"]}
    fields = {
        "schema_version": 1,
        "name": name,
        "task": "recommendation",
        "version": "1",
        "source": "made by a test",
        "licence": "Apache-2.0",
        "family": "table",
        "parameters": (ITEMS + 1) * ITEMS,
        "languages": {"source": []},
        "precisions": {"fp32": {"graphs": {"forward": graph}}},
        "catalogue": file(folder, "catalogue.json"),
        "limits": {"max_tokens": 20},
        "example": {"inputs": {"history": ["i1"]}},
        "created_by": "tests.tiny",
    }
    (folder / "bundle.json").write_text(json.dumps(fields | manifest))
    return folder


def write_broken(folder: Path, name: str, **manifest: Any) -> Path:
    """Write a bundle whose hashes are right and whose graph ONNX Runtime cannot load."""
    write_bundle(folder, name, **manifest)
    (folder / "forward.onnx").write_bytes(b"no graph at all")
    fields = json.loads((folder / "bundle.json").read_text())
    fields["precisions"]["fp32"]["graphs"]["forward"]["file"] = file(folder, "forward.onnx")
    (folder / "bundle.json").write_text(json.dumps(fields))
    return folder


def file(folder: Path, path: str) -> dict[str, object]:
    """What the manifest says of a file as it is now."""
    content = (folder / path).read_bytes()
    return {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _graph(products: int, seed: int, poison: int | None) -> bytes:
    """Scores of a table's row; the products start from the tokens, so that none can be computed ahead of the pass."""
    random = np.random.default_rng(seed)
    of_token = np.arange(ITEMS + 1)
    if poison is not None:
        of_token[poison + FIRST_ITEM] = 1_000_000  # no row of the table, so that ONNX Runtime refuses it
    weights = {
        "of_token": of_token,
        "table": random.normal(size=(ITEMS + 1, ITEMS)).astype(np.float32),
        "matrix": (random.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32),
        "tiny": np.float32(1e-9),
        "corner": np.zeros(2, np.int64),
        "size": np.ones(2, np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["tokens", "starts"], ["last"]),
        helper.make_node("Gather", ["of_token", "last"], ["row"]),
        helper.make_node("Gather", ["table", "row"], ["of_item"]),
        helper.make_node("Cast", ["tokens"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "tiny"], ["small"]),
        helper.make_node("Add", ["matrix", "small"], ["product0"]),
        *(
            node
            for index in range(products)
            for node in (
                helper.make_node("MatMul", [f"product{index}", "matrix"], [f"raw{index}"]),
                helper.make_node("Tanh", [f"raw{index}"], [f"product{index + 1}"]),
            )
        ),
        helper.make_node("Slice", [f"product{products}", "corner", "size"], ["cell"]),
        helper.make_node("Mul", ["cell", "tiny"], ["nothing"]),
        helper.make_node("Add", ["of_item", "nothing"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "table",
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["tokens"]),
            helper.make_tensor_value_info("starts", TensorProto.INT64, ["rows"]),
        ],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", ITEMS])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content
