"""A checkpoint directory as the exporter sees it: which graphs it becomes, and what the original model answers."""

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
from models.export.errors import PICKLE_HINT
from models.export.errors import ExportError as ExportError  # noqa: PLC0414 - known from here to others
from models.export.graphs import Source, encoder_source, packed_source, step_source
from models.export.span_scoring import SpanScoring
from models.nets.families import encoder_decoder, next_item
from models.nets.sasrec import SasRec
from models.task import Row

CONFIG_FILE = "config.json"
WEIGHTS_FILES = ("model.safetensors", "model.safetensors.index.json")
LONGEST_OUTPUT = 256
LONGEST_WITHOUT_POSITIONS = 512
"""Of sources where the checkpoint has no table of positions that would end: T5 was trained on as many."""

_NO_SETTING: Mapping[str, Any] = {
    "begin_suppress_tokens": None,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "sequence_bias": None,
    "suppress_tokens": None,
}
"""Settings of a generation config that decoding does not know, and the value at which they do nothing."""

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


class EncoderDecoder:
    """A checkpoint of any encoder-decoder family."""

    tasks: ClassVar[tuple[str, ...]] = ("translation", "summarization")

    def __init__(self, model: Any) -> None:
        self.model = model
        self._prefix = ""

    @property
    def vocabulary(self) -> int:
        return int(self.model.config.vocab_size)

    def architecture(self) -> str:
        config = self.model.config
        decoder_layers = getattr(config, "num_decoder_layers", None) or config.decoder_layers
        return (
            f"encoder-decoder ({config.model_type}), {config.num_hidden_layers} + {decoder_layers} layers, width"
            f" {config.d_model}, {config.num_attention_heads} heads, vocabulary {config.vocab_size:,}"
        )

    def limits(self) -> Limits:
        positions = getattr(self.model.config, "max_position_embeddings", LONGEST_WITHOUT_POSITIONS)
        beams = max(Limits.model_fields["max_beams"].default, self.model.generation_config.num_beams or 1)
        return Limits(max_tokens=positions, max_new_tokens=min(LONGEST_OUTPUT, positions), max_beams=beams)

    def specialise(self, task: str, languages: Languages, first_token: int | None) -> None:
        """`task_specific_params` of config.json, which names translation by its languages: `translation_en_to_de`."""
        if task == "translation":
            task = "_".join(("translation", *languages.source, "to", *languages.target))
        settings = (getattr(self.model.config, "task_specific_params", None) or {}).get(task, {})
        self._prefix = settings.get("prefix", "")
        self.model.generation_config.update(**settings)
        if first_token is not None:
            self.model.generation_config.forced_bos_token_id = first_token

    def generation(self) -> GenerationDefaults:
        config = self.model.generation_config
        if not isinstance(config.eos_token_id, int) or not isinstance(config.decoder_start_token_id, int):
            found = f"eos_token_id is {config.eos_token_id}, decoder_start_token_id is {config.decoder_start_token_id}"
            raise ExportError(f"the checkpoint must name one end token and one decoder start token: {found}")
        unknown = [name for name, nothing in _NO_SETTING.items() if getattr(config, name, None) not in (None, nothing)]
        if unknown:
            raise ExportError(f"the generation config has settings that are not supported: {', '.join(unknown)}")
        words = [tuple(word) for word in config.bad_words_ids or [] if word != [config.eos_token_id]]
        longest = self.limits().max_new_tokens
        return GenerationDefaults(
            prefix=self._prefix,
            decoder_start_token_id=config.decoder_start_token_id,
            eos_token_id=config.eos_token_id,
            forced_bos_token_id=config.forced_bos_token_id,
            forced_eos_token_id=_only(config.forced_eos_token_id),
            suppressed_token_ids=tuple(word[0] for word in words if len(word) == 1),
            bad_words=tuple(word for word in words if len(word) > 1),
            max_new_tokens=min(longest, config.max_new_tokens or (config.max_length or longest + 1) - 1),
            min_new_tokens=config.min_new_tokens or max((config.min_length or 1) - 1, 0),
            repetition_penalty=config.repetition_penalty or 1.0,
            no_repeat_ngram_size=config.no_repeat_ngram_size or 0,
            num_beams=config.num_beams or 1,
            length_penalty=1.0 if config.length_penalty is None else config.length_penalty,
            early_stopping=config.early_stopping or False,
            renormalize_logits=bool(config.renormalize_logits),
        )

    def sources(self, limits: Limits) -> Mapping[Role, Source]:
        encoder, step = encoder_decoder(
            self.model, source_length=limits.max_tokens, target_length=limits.max_new_tokens
        )
        return {
            "encoder": encoder_source(encoder),
            "step": step_source(step, layers=encoder.layers, heads=encoder.heads, width=encoder.head_width),
        }

    def answer(self, row: Row) -> Answer:
        """`decoded`, the row's tokens, end token included; `target`, what the decoder read for them; its `logits`."""
        if row.generation is None:
            raise ValueError("an encoder-decoder answers rows that ask for generation")
        source, asked = torch.from_numpy(row.tokens)[None], row.generation
        of_beams = {"length_penalty": asked.length_penalty, "early_stopping": asked.early_stopping}
        with torch.inference_mode():
            tokens = self.model.generate(
                source,
                attention_mask=torch.ones_like(source),
                do_sample=False,
                max_new_tokens=None,
                max_length=asked.max_new_tokens + 1,
                repetition_penalty=asked.repetition_penalty,
                no_repeat_ngram_size=asked.no_repeat_ngram_size,
                num_beams=asked.num_beams,
                **(of_beams if asked.num_beams > 1 else {}),
            )
            logits = self.model(input_ids=source, decoder_input_ids=tokens[:, :-1]).logits
        return {"decoded": tokens[0, 1:].numpy(), "target": tokens[0, :-1].numpy(), "logits": logits[0].numpy()}


class NextItem:
    """A checkpoint of our own SASRec."""

    tasks: ClassVar[tuple[str, ...]] = ("recommendation",)

    def __init__(self, model: SasRec) -> None:
        self.model = model

    @property
    def vocabulary(self) -> int:
        return self.model.config.num_items + 1

    def architecture(self) -> str:
        config = self.model.config
        return (
            f"causal self-attention (sasrec), {config.num_layers} layers, width {config.hidden_size},"
            f" {config.num_heads} heads, {config.num_items:,} items"
        )

    def limits(self) -> Limits:
        return Limits(max_tokens=self.model.config.max_length)

    def specialise(self, task: str, languages: Languages, first_token: int | None) -> None:
        """Nothing is generated."""

    def generation(self) -> None:
        return None

    def sources(self, limits: Limits) -> Mapping[Role, Source]:
        if limits.max_tokens > self.model.config.max_length:
            raise ValueError(f"the checkpoint has {self.model.config.max_length} positions, not {limits.max_tokens}")
        return {"forward": packed_source(next_item(self.model), {"scores": ("rows", self.model.config.num_items)})}

    def answer(self, row: Row) -> Answer:
        """`scores`, float32 [items]."""
        with torch.inference_mode():
            hidden = self.model(torch.from_numpy(row.tokens)[None])
            return {"scores": self.model.scores(hidden[0, -1])[1:].numpy()}


def _only(token_ids: int | list[int] | None) -> int | None:
    if not isinstance(token_ids, list):
        return token_ids
    if len(token_ids) != 1:
        raise ExportError(f"the checkpoint must name one forced end token: {token_ids}")
    return token_ids[0]


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
