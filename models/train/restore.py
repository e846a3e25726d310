"""The weights of a bundle back in the model that they were exported from, so that a training goes on where it ended.

The exporter copies, cuts and joins tensors, and computes nothing but the rounding to int8. So a model whose weights are
numbered consecutively shows, after the same conversion, where each number of the bundle belongs.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from torch import nn

from models.bundle import Bundle, Limits, Role
from models.errors import BundleError
from models.nets.encoders import question_answering
from models.nets.families import encoder_decoder

_TABLE = ".table.values"


def restore(model: Any, bundle: Bundle) -> None:
    """Give a model of transformers the weights of a bundle, as near as its precision kept them.

    Positions that the bundle cut off keep the model's own values.

    Raises:
        BundleError: the bundle is of another architecture, or says nothing of one of the model's tensors.
    """
    numbered = copy.deepcopy(model).double()
    first = 0
    with torch.no_grad():
        for tensor in _tensors(numbered).values():
            tensor.copy_(torch.arange(first, first + tensor.numel()).view_as(tensor))
            first += tensor.numel()
        own = _tensors(model)
        whole, known = torch.cat([tensor.flatten() for tensor in own.values()]), torch.zeros(first, dtype=torch.bool)
        graphs = bundle.graphs(next(iter(bundle.manifest.precisions))).graphs
        for role, module in _modules(numbered, bundle).items():
            for name, (places, value) in _found(module, bundle.path(graphs[role].file)).items():
                if places.shape != value.shape:
                    shapes = f"{list(value.shape)}, the model's {list(places.shape)}"
                    raise BundleError(f"{bundle.folder}: {role}'s {name} is {shapes}")
                if not torch.equal(places, places.round()):
                    raise BundleError(f"{bundle.folder}: {role}'s {name} is not a copy of the checkpoint's weights")
                whole[places.long().flatten()] = value.flatten()
                known[places.long().flatten()] = True
        sizes = [tensor.numel() for tensor in own.values()]
        for (name, tensor), values, told in zip(
            own.items(), torch.split(whole, sizes), torch.split(known, sizes), strict=True
        ):
            if not told.any():
                raise BundleError(f"{bundle.folder}: says nothing of the model's {name}")
            tensor.copy_(values.view_as(tensor))


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers that hold floats, tied ones once."""
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


def _modules(model: Any, bundle: Bundle) -> Mapping[Role, nn.Module]:
    """What the exporter traces; in float64, whose integers are exact for as many weights as there are."""
    limits: Limits = bundle.manifest.limits
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        if bundle.manifest.generation is None:
            return {"forward": question_answering(model, length=limits.max_tokens)}
        return dict(
            zip(
                ("encoder", "step"),
                encoder_decoder(model, source_length=limits.max_tokens, target_length=limits.max_new_tokens),
                strict=True,
            )
        )
    except ValueError as error:
        raise BundleError(f"{bundle.folder}: does not fit the model: {error}") from error
    finally:
        torch.set_default_dtype(usual)


def _found(module: nn.Module, graph: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """For each tensor that module and graph both have: the module's, and the graph's value as float32."""
    stored = {
        name: torch.from_numpy(value.const_value.numpy().copy())
        for name, value in onnx_ir.load(graph).graph.initializers.items()
        if value.const_value is not None
    }
    embedded = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    found = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        owner = name.removesuffix(".weight")
        if owner + _TABLE in stored:
            found[name] = (tensor, stored[owner + _TABLE] * stored[f"{owner}.table.scales"][:, None])
        elif name in stored and stored[name].dtype == torch.int8:
            value = stored[name] if id(tensor) in embedded else stored[name].T
            found[name] = (tensor, value * stored[f"{owner}.scales"][:, None])
        elif name in stored:
            found[name] = (tensor, stored[name])
    return found
