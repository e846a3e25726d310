"""Opens a checkpoint directory: its config.json says of which family it is, and so how it is loaded and exported."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import torch
from numpy.typing import NDArray
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

    def specialise(self, task: str, languages: Languages, first_token: int | None) -> None:
        """Take on the settings that a generating model has for this task alone.

        Args:
            first_token: the decoder is forced to start with it; None leaves that to the checkpoint.
        """
        ...

    def generation(self) -> GenerationDefaults | None:
        """What a generating model starts from."""
        ...

    def sources(self, limits: Limits) -> Mapping[Role, Source]:
        """Modules to trace, float32."""
        ...

    def answer(self, row: Row) -> Answer:
        """What the original model computes for one row, under the names of the graph's outputs."""
        ...


def _from_transformers(kind: Any, wrap: Callable[[Any], Checkpoint]) -> Callable[[Path], Checkpoint]:
    def load(folder: Path) -> Checkpoint:
        model, info = kind.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
        if info["missing_keys"]:
            raise ValueError(f"weights are missing: {', '.join(sorted(info['missing_keys']))}")
        return wrap(model.eval())

    return load


_FAMILIES: Mapping[str, Callable[[Path], Checkpoint]] = {
    "marian": _from_transformers(MarianMTModel, EncoderDecoder),
    "bart": _from_transformers(BartForConditionalGeneration, EncoderDecoder),
    "pointer-bart": _from_transformers(PointerBart, EncoderDecoder),
    "mbart": _from_transformers(MBartForConditionalGeneration, EncoderDecoder),
    "pegasus": _from_transformers(PegasusForConditionalGeneration, EncoderDecoder),
    "m2m_100": _from_transformers(M2M100ForConditionalGeneration, EncoderDecoder),
    "t5": _from_transformers(T5ForConditionalGeneration, EncoderDecoder),
    "mt5": _from_transformers(MT5ForConditionalGeneration, EncoderDecoder),
    "sasrec": lambda folder: NextItem(SasRec.load(folder)),
}

_span_scoring = _from_transformers(AutoModelForQuestionAnswering, SpanScoring)


def _loader(config: Mapping[str, Any]) -> Callable[[Path], Checkpoint] | None:
    """How a checkpoint with this config.json is loaded; a family may also be one that only answers questions."""
    family = config["model_type"]
    answers_questions = any("ForQuestionAnswering" in name for name in config.get("architectures") or ())
    if family in _FAMILIES and not answers_questions:
        return _FAMILIES[family]
    return _span_scoring if family in MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES else None


def recognise(folder: Path) -> tuple[str, Callable[[Path], Checkpoint]]:
    """The family of a checkpoint, which is `model_type` of its config.json, and how it is loaded.

    Raises:
        ExportError: no configuration, or an unknown family.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_bytes())
        family, load = config["model_type"], _loader(config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{folder}: no checkpoint, {CONFIG_FILE} with a model_type is needed: {error!r}") from error
    if load is None:
        raise ExportError(
            f"{folder}: model_type {family!r} is not one of {', '.join(_FAMILIES)}, nor does transformers have a"
            " question answering head for it"
        )
    return family, load


def open_checkpoint(folder: Path) -> tuple[str, Checkpoint]:
    """Load a checkpoint directory whose weights are safetensors.

    Returns:
        The family, which is `model_type` of config.json, and the checkpoint.

    Raises:
        ExportError: no configuration, an unknown family, no safetensors, or weights that do not fit.
    """
    family, load = recognise(folder)
    if not any((folder / name).is_file() for name in WEIGHTS_FILES):
        raise ExportError(f"{folder}: {WEIGHTS_FILES[0]} is missing; {PICKLE_HINT}")
    try:
        return family, load(folder)
    except Exception as error:  # transformers, safetensors and torch each raise their own
        reason = (str(error) or repr(error)).strip().splitlines()[0]
        raise ExportError(f"{folder}: the checkpoint cannot be loaded: {reason}") from error
