"""Opens a checkpoint directory: its config.json says of which family it is, and so how it is loaded and exported."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import (
    AutoModelForQuestionAnswering,
    BartForConditionalGeneration,
    M2M100ForConditionalGeneration,
    MarianMTModel,
    MBartForConditionalGeneration,
    MT5ForConditionalGeneration,
    PegasusForConditionalGeneration,
    T5ForConditionalGeneration,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES

from models.bundle import GenerationDefaults, Languages, Limits, Role
from models.export.encoder_decoder import EncoderDecoder
from models.export.errors import PICKLE_HINT, ExportError
from models.export.graphs import Source
from models.export.next_item import NextItem
from models.export.span_scoring import SpanScoring
from models.nets.pointer import PointerBart
from models.nets.sasrec import SasRec
from models.task import Row

CONFIG_FILE = "config.json"
WEIGHTS_FILES = ("model.safetensors", "model.safetensors.index.json")

Answer: TypeAlias = Mapping[str, NDArray[Any]]
"""What a checkpoint computes for one row: float32 outputs, and the int64 tokens that its decoder was given."""


class Checkpoint(Protocol):
    """What the exporter needs of a family. `model` is the original, in evaluation mode and float32."""

    tasks: ClassVar[tuple[str, ...]]
    model: Any

    @property
    def vocabulary(self) -> int:
        """How many ids there are."""
        ...

    def architecture(self) -> str:
        """Layers, widths and vocabulary in one line."""
        ...

    def limits(self) -> Limits:
        """As much as the checkpoint's positions allow."""
        ...

    def specialise(self, task: str, languages: Languages) -> None:
        """Take on the settings that a generating model has for this task alone."""
        ...

    def generation(self, limits: Limits | None = None, /) -> GenerationDefaults | None:
        """What a generating model starts from; an output is as long as the limits allow where nothing says less.

        Args:
            limits: None takes those of the checkpoint.
        """
        ...

    def sources(self, limits: Limits) -> Mapping[Role, Source]:
        """Modules to trace, float32."""
        ...

    def answer(self, row: Row) -> Answer:
        """What the original model computes for one row, under the names of the graph's outputs."""
        ...


@dataclass(frozen=True, slots=True)
class Recognised:
    """What config.json alone tells of a checkpoint.

    Args:
        family: its `model_type`.
        tasks: which it serves.
        vocabulary: how many ids its model has; None where it has no words.
    """

    family: str
    tasks: tuple[str, ...]
    vocabulary: int | None
    load: Callable[[Path], Checkpoint]


def _from_transformers(kind: Any, wrap: Callable[[Any], Checkpoint]) -> Callable[[Path], Checkpoint]:
    def load(folder: Path) -> Checkpoint:
        model, info = kind.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # else the error names none of them, and points to a table that is not shown
        )
        if info["mismatched_keys"]:
            raise ValueError(_mismatch(sorted(info["mismatched_keys"])))
        if info["missing_keys"]:
            raise ValueError(f"weights are missing: {', '.join(sorted(info['missing_keys']))}")
        # A copy, since the weights are views of the mapped file, and the exporter keeps some of them, and so the whole.
        return wrap(copy.deepcopy(model).eval())

    return load


def _mismatch(found: Sequence[tuple[str, Sequence[int], Sequence[int]]]) -> str:
    """Args: found: names with the shapes in the file and by the configuration."""
    (name, in_file, by_config), *others = found
    more = f", and {len(others)} more do not fit either" if others else ""
    return f"{name} is {list(in_file)} in the file and {list(by_config)} by {CONFIG_FILE}{more}"


_ENCODER_DECODERS: Mapping[str, Any] = {
    "marian": MarianMTModel,
    "bart": BartForConditionalGeneration,
    "pointer-bart": PointerBart,
    "mbart": MBartForConditionalGeneration,
    "pegasus": PegasusForConditionalGeneration,
    "m2m_100": M2M100ForConditionalGeneration,
    "t5": T5ForConditionalGeneration,
    "mt5": MT5ForConditionalGeneration,
}


_WRITING = ("ForConditionalGeneration", "Model", "PointerBart")
"""How the names of classes end whose weights are all that writes text takes; `BartModel` has the same as its
`BartForConditionalGeneration`. A classifier has them too, but they were trained for something else.
"""


def recognise(folder: Path, task: str | None = None) -> Recognised:
    """What kind of checkpoint a directory holds.

    Args:
        task: that it must serve.

    Raises:
        ExportError: no configuration, an unknown family, one for other tasks, weights of a classifier, or no
            safetensors.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_bytes())
        family, found = config["model_type"], _recognised(config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{folder}: no checkpoint, {CONFIG_FILE} with a model_type is needed: {error!r}") from error
    if found is None:
        raise ExportError(
            f"{folder}: model_type {family!r} is not one of {', '.join(_ENCODER_DECODERS)}, sasrec, nor does"
            " transformers have a question answering head for it"
        )
    if task is not None and task not in found.tasks:
        raise ExportError(f"a {family} checkpoint serves {' or '.join(found.tasks)}, not {task}")
    if not any((folder / name).is_file() for name in WEIGHTS_FILES):
        raise ExportError(f"{folder}: {WEIGHTS_FILES[0]} is missing; {PICKLE_HINT}")
    return found


def _recognised(config: Mapping[str, Any]) -> Recognised | None:
    """By `model_type`; an encoder-decoder may also be one that only answers questions."""
    family, vocabulary = config["model_type"], config.get("vocab_size")
    architectures = config.get("architectures") or ()
    answers_questions = any("ForQuestionAnswering" in name for name in architectures)
    if family == "sasrec":
        return Recognised(family, NextItem.tasks, None, lambda folder: NextItem(SasRec.load(folder)))
    if family in _ENCODER_DECODERS and not answers_questions:
        if architectures and not any(name.endswith(_WRITING) for name in architectures):
            raise ExportError(
                f"architectures in {CONFIG_FILE} must name a class that writes text, as"
                f" {_ENCODER_DECODERS[family].__name__}, got {', '.join(architectures)}"
            )
        load = _from_transformers(_ENCODER_DECODERS[family], EncoderDecoder)
        return Recognised(family, EncoderDecoder.tasks, vocabulary, load)
    if family in MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES:
        load = _from_transformers(AutoModelForQuestionAnswering, SpanScoring)
        return Recognised(family, SpanScoring.tasks, vocabulary, load)
    return None


def open_checkpoint(folder: Path) -> tuple[str, Checkpoint]:
    """Load a checkpoint directory whose weights are safetensors.

    Returns:
        The family, which is `model_type` of config.json, and the checkpoint.

    Raises:
        ExportError: no configuration, an unknown family, weights of a classifier, no safetensors, or weights that do
            not fit.
    """
    found = recognise(folder)
    try:
        return found.family, found.load(folder)
    except Exception as error:  # transformers, safetensors and torch each raise their own
        reason = (str(error) or repr(error)).strip().splitlines()[0]
        broken = ": a file is broken or cut short, fetch it again" if isinstance(error, SafetensorError) else ""
        raise ExportError(f"{folder}: the checkpoint cannot be loaded: {reason}{broken}") from error
