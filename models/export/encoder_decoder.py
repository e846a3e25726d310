"""Checkpoints of encoder-decoders: an encoder's and a decoder step's graph, and how they generate."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from models.bundle import GenerationDefaults, Languages, Limits, Role
from models.export.errors import ExportError
from models.export.graphs import Source, encoder_source, step_source
from models.nets.families import encoder_decoder
from models.task import Row

LONGEST_OUTPUT = 256
LONGEST_WITHOUT_POSITIONS = 512
"""Of sources where the checkpoint has no table of positions that would end: T5 was trained on as many."""

_NO_SETTING: Mapping[str, Any] = {
    "begin_suppress_tokens": None,
    "constraints": None,
    "diversity_penalty": 0.0,
    "dola_layers": None,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None,
    "force_words_ids": None,
    "guidance_scale": 1.0,
    "max_time": None,
    "min_p": 0.0,
    "num_beam_groups": 1,
    "penalty_alpha": 0.0,
    "sequence_bias": None,
    "stop_strings": None,
    "suppress_tokens": None,
    "token_healing": False,
    "top_h": None,
    "typical_p": 1.0,
    "watermarking_config": None,
}
"""Settings of a generation config that decoding does not know, and the value at which they do nothing."""


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

    def specialise(self, task: str, languages: Languages) -> None:
        """`task_specific_params` of config.json, which names translation by its languages: `translation_en_to_de`.

        A `prefix` at the top of config.json stands before every source that these have none for.
        """
        if task == "translation":
            task = "_".join(("translation", *languages.source, "to", *languages.target))
        settings = (getattr(self.model.config, "task_specific_params", None) or {}).get(task, {})
        self._prefix = settings.get("prefix", getattr(self.model.config, "prefix", None) or "")
        self.model.generation_config.update(**settings)

    def generation(self, limits: Limits | None = None, /) -> GenerationDefaults:
        config = self.model.generation_config
        if not isinstance(config.eos_token_id, int) or not isinstance(config.decoder_start_token_id, int):
            found = f"eos_token_id is {config.eos_token_id}, decoder_start_token_id is {config.decoder_start_token_id}"
            raise ExportError(f"the checkpoint must name one end token and one decoder start token: {found}")
        unknown = [name for name, nothing in _NO_SETTING.items() if getattr(config, name, None) not in (None, nothing)]
        if unknown:
            raise ExportError(f"the generation config has settings that are not supported: {', '.join(unknown)}")
        if config.do_sample:
            raise ExportError(
                "the generation config has do_sample: true, but a bundle draws tokens only for requests that ask for"
                " it: where its answers may be the likeliest ones else, set do_sample to false in"
                " generation_config.json, of a copy if the checkpoint is on the hub; temperature, top_k and top_p stay"
            )
        words = [tuple(word) for word in config.bad_words_ids or [] if word != [config.eos_token_id]]
        longest = (limits or self.limits()).max_new_tokens
        return _checked(
            prefix=self._prefix,
            decoder_start_token_id=config.decoder_start_token_id,
            eos_token_id=config.eos_token_id,
            forced_bos_token_id=config.forced_bos_token_id,
            forced_eos_token_id=_only(config.forced_eos_token_id),
            suppressed_token_ids=tuple(word[0] for word in words if len(word) == 1),
            bad_words=tuple(word for word in words if len(word) > 1),
            max_new_tokens=min(longest, config.max_new_tokens or (config.max_length or longest + 1) - 1),
            min_new_tokens=config.min_new_tokens or max((config.min_length or 1) - 1, 0),
            temperature=_unless(1.0, config.temperature),
            top_k=_unless(0, config.top_k),
            top_p=_unless(1.0, config.top_p),
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

    def answer(self, row: Row) -> Mapping[str, NDArray[Any]]:
        """`decoded`, the row's tokens, end token included; `target`, what the decoder read for them; its `logits`."""
        if row.generation is None:
            raise ValueError("an encoder-decoder answers rows that ask for generation")
        source, asked = torch.from_numpy(row.tokens)[None], row.generation
        forced = {} if asked.forced_bos_token_id is None else {"forced_bos_token_id": asked.forced_bos_token_id}
        of_beams = {"length_penalty": asked.length_penalty, "early_stopping": asked.early_stopping}
        with torch.inference_mode():
            tokens = self.model.generate(
                source,
                attention_mask=torch.ones_like(source),
                do_sample=False,
                num_return_sequences=1,
                return_dict_in_generate=False,
                max_new_tokens=None,
                max_length=asked.max_new_tokens + 1,
                repetition_penalty=asked.repetition_penalty,
                no_repeat_ngram_size=asked.no_repeat_ngram_size,
                num_beams=asked.num_beams,
                **forced,
                **(of_beams if asked.num_beams > 1 else {}),
            )
            logits = self.model(input_ids=source, decoder_input_ids=tokens[:, :-1]).logits
        return {"decoded": tokens[0, 1:].numpy(), "target": tokens[0, :-1].numpy(), "logits": logits[0].numpy()}


def _checked(**settings: Any) -> GenerationDefaults:
    try:
        return GenerationDefaults(**settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ExportError(
            f"the generation config's {first['loc'][0]} is {first['input']!r}: {first['msg']}; mend it in"
            " generation_config.json"
        ) from error


def _unless(neutral: float, value: Any) -> Any:
    """None for a value that changes nothing or, as a temperature of 0, means nothing beside sampling."""
    return None if not value or value == neutral else value


def _only(token_ids: int | list[int] | None) -> int | None:
    if not isinstance(token_ids, list):
        return token_ids
    if len(token_ids) != 1:
        raise ExportError(f"the checkpoint must name one forced end token: {token_ids}")
    return token_ids[0]
