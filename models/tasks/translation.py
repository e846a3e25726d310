"""Translation: sentence by sentence, with the layout of the caller's text kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import repeat
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from models.bundle import Bundle, TargetTokens
from models.errors import BundleError, InvalidInput, TooLarge
from models.explain import Explain, Explanation
from models.generation import Closed, GenerateParameters, WritingRequest, check_writing, generation, rows_of
from models.sentences import Piece, pieces
from models.task import Draft, Solution, Tokens
from models.text import Tokenizer, Truncation, clean_up_spaces
from models.writing import check_texts, origins_of, write_texts

_LISTED = 12
"""Languages that an error names at most."""


class TranslationParameters(Closed):
    """Hugging Face's translation parameters."""

    src_lang: str | None = Field(
        None, description="Language of the text; the model's own when left out, if it has one."
    )
    tgt_lang: str | None = Field(
        None, description="Language to translate into; the model's own when left out, if it has one."
    )
    clean_up_tokenization_spaces: bool | None = Field(None, description="Remove spaces before English punctuation.")
    truncation: Truncation | None = Field(
        None,
        description="A sentence over the model's limit is translated in parts when left out, cut by `longest_first` and"
        " `only_first`, refused by `do_not_truncate`.",
    )
    generate_parameters: GenerateParameters | None = None


class TranslationRequest(WritingRequest):
    """One text or several to translate."""

    parameters: TranslationParameters | None = None
    explain: Explain | None = None


class TranslationAnswer(Closed):
    """One translated text."""

    translation_text: str
    explanation: Explanation | None = Field(None, description="Where `explain` asks for it.")


class Translation:
    """Translates with an encoder-decoder bundle, for one pair of languages or for many."""

    id: ClassVar[str] = "translation"
    request_type: ClassVar[type[BaseModel]] = TranslationRequest
    response_type: ClassVar[Any] = list[TranslationAnswer]

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, manifest = bundle, bundle.manifest
        languages, tokens = manifest.languages, manifest.language_tokens
        if manifest.tokenizer is None or manifest.generation is None or not (languages.source and languages.target):
            raise BundleError(
                f"{bundle.folder}: a translation bundle needs a tokenizer, generation defaults and its languages"
            )
        self._defaults = manifest.generation
        self._languages, self._tokens = languages, tokens
        self._default_source = tokens.default_source if tokens and tokens.source else languages.source[0]
        self._default_target = tokens.default_target if tokens else languages.target[0]
        self._limits = manifest.limits
        self._tokenizer = Tokenizer(
            bundle.path(manifest.tokenizer),
            prefix=manifest.generation.prefix,
            out_of_vocabulary=manifest.out_of_vocabulary,
        )

    def solve(self, request: TranslationRequest) -> Solution[list[TranslationAnswer]]:
        """Translate each text.

        Raises:
            InvalidInput: a language that the model does not know or must be told, a blank text, decoding that it
                cannot do.
            TooLarge: too many texts, a text that is too long, or a long sentence with `do_not_truncate`.
        """
        written = yield from write_texts(self.draft(request), request.explain, self._bundle)
        return [TranslationAnswer(translation_text=text, explanation=explanation) for text, explanation in written]

    def draft(self, request: TranslationRequest) -> Draft:
        """One row for each sentence of each text. Raises what `solve` raises."""
        parameters = request.parameters or TranslationParameters()
        check_writing(request, self._limits)
        source = _chosen("src_lang", parameters.src_lang, self._languages.source, self._default_source)
        target = _chosen("tgt_lang", parameters.tgt_lang, self._languages.target, self._default_target)
        tokenizer, into = self._between(source, target)
        settings = generation(parameters.generate_parameters, self._defaults, self._limits)
        settings = replace(settings, forced_bos_token_id=into.forced_bos_token_id)
        encode = cache(tokenizer.encode)  # a sentence whose tokens were counted is about to be a row
        fit = partial(self._fit, tokenizer, encode, truncation=parameters.truncation)
        texts = [[fitted for piece in pieces(text, source) for fitted in fit(piece)] for text in request.inputs]
        origins = [
            origin
            for index, text in enumerate(texts)
            for origin in origins_of(index, request.inputs[index], [piece.text for piece in text if piece.is_sentence])
        ]
        rows = rows_of((encode(origin.piece) for origin in origins), settings)
        tidy = clean_up_spaces if parameters.clean_up_tokenization_spaces else str
        layouts = [layout for text in texts for layout in _in_place(repeat(""), text, whole=False)]

        def join(translated: Sequence[str], whole: bool) -> list[str]:
            sentences = iter(translated)
            return [tidy("".join(_in_place(sentences, text, whole=whole))) for text in texts]

        def add(so_far: str, row: int, sentence: str) -> str:
            return so_far + layouts[row] + sentence

        draft = Draft(rows, self._tokenizer.decode, join, add, tidy, origins, tokenizer)
        if request.explain is not None:
            check_texts(request.explain, draft, self._bundle, is_stream=request.stream)
        return draft

    def _between(self, source: str, target: str) -> tuple[Tokenizer, TargetTokens]:
        """The tokenizer with what says the two languages to the encoder, and what says the target to the decoder."""
        if self._tokens is None:
            return self._tokenizer, TargetTokens()
        into = self._tokens.target[target]
        return self._tokenizer.with_specials(into.before, self._tokens.source.get(source)), into

    def _fit(
        self, tokenizer: Tokenizer, encode: Callable[[str], Tokens], piece: Piece, *, truncation: Truncation | None
    ) -> list[Piece]:
        """The piece, or parts of it that the model can read."""
        limit = self._limits.max_tokens
        if not piece.is_sentence or (count := len(encode(piece.text))) <= limit:
            return [piece]
        if truncation == "do_not_truncate":
            raise TooLarge(
                f"inputs may have sentences of at most {limit} tokens, got one of {count}", pointer="/inputs"
            )
        parts = tokenizer.split(piece.text, limit)
        if truncation is not None:
            parts = parts[:1]
        return [part for stretch in parts for part in _with_blank(stretch)]


def _chosen(field: str, asked: str | None, known: Sequence[str], default: str | None) -> str:
    """The language that was asked for, else the default one.

    Raises:
        InvalidInput: the model does not know it, or none was asked for and none is the default.
    """
    language = asked if asked is not None else default
    if language is not None and language in known:
        return language
    got = "nothing, and the model has no default" if asked is None else repr(asked[:64])
    detail = f"parameters/{field} must be one of {_some(known, asked or '')} for this model, got {got}"
    raise InvalidInput(detail, pointer=f"/parameters/{field}")


def _some(known: Sequence[str], asked: str) -> str:
    """As many languages as a sentence bears, those first that begin as the one asked for does."""
    nearest = sorted(known, key=lambda code: code[:2] != asked[:2].lower())
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return ", ".join(nearest[:_LISTED]) + more


def _in_place(sentences: Iterator[str], text: list[Piece], *, whole: bool) -> Iterator[str]:
    """Translated sentences in the layout of the caller's text; if they are not the whole, up to the last of them."""
    layout = ""
    for piece in text:
        if not piece.is_sentence:
            layout += piece.text
            continue
        if (sentence := next(sentences, None)) is None:
            return
        yield layout + sentence
        layout = ""
    if whole:
        yield layout


def _with_blank(stretch: str) -> list[Piece]:
    body = stretch.rstrip()
    pieces = [Piece(body, is_sentence=True)] if body else []
    return [*pieces, Piece(stretch[len(body) :], is_sentence=False)]
