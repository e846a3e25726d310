"""Translation: sentence by sentence, with the layout of the caller's text kept."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from models.bundle import Bundle
from models.errors import BundleError, InvalidInput, TooLarge
from models.generation import Closed, GenerateParameters, WritingRequest, check_writing, generation
from models.task import Draft, Row, Solution
from models.text import Piece, Tokenizer, Truncation, clean_up_spaces, pieces


class TranslationParameters(Closed):
    """Hugging Face's translation parameters."""

    src_lang: str | None = Field(None, description="Language of the text; the model's own when left out.")
    tgt_lang: str | None = Field(None, description="Language to translate into; the model's own when left out.")
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


class TranslationAnswer(Closed):
    """One translated text."""

    translation_text: str


class Translation:
    """Translates with an encoder-decoder bundle that has one source and one target language."""

    id: ClassVar[str] = "translation"
    request_type: ClassVar[type[BaseModel]] = TranslationRequest
    response_type: ClassVar[Any] = list[TranslationAnswer]

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        if manifest.tokenizer is None or manifest.generation is None:
            raise BundleError(f"{bundle.folder}: a translation bundle needs a tokenizer and generation defaults")
        self._defaults = manifest.generation
        self._languages = manifest.languages
        self._limits = manifest.limits
        self._tokenizer = Tokenizer(bundle.path(manifest.tokenizer), prefix=manifest.generation.prefix)

    def solve(self, request: TranslationRequest) -> Solution[list[TranslationAnswer]]:
        """Translate each text.

        Raises:
            InvalidInput: a language that the model does not know, a blank text, decoding that it cannot do.
            TooLarge: too many texts, a text that is too long, or a long sentence with `do_not_truncate`.
        """
        texts = yield from self.draft(request).write()
        return [TranslationAnswer(translation_text=text) for text in texts]

    def draft(self, request: TranslationRequest) -> Draft:
        """One row for each sentence of each text. Raises what `solve` raises."""
        parameters = request.parameters or TranslationParameters()
        check_writing(request, self._limits)
        self._check_language("src_lang", parameters.src_lang, self._languages.source)
        self._check_language("tgt_lang", parameters.tgt_lang, self._languages.target)
        settings = generation(parameters.generate_parameters, self._defaults, self._limits)
        texts = [
            [
                fitted
                for piece in pieces(text, self._languages.source[0])
                for fitted in self._fit(piece, parameters.truncation)
            ]
            for text in request.inputs
        ]
        rows = [
            Row(self._tokenizer.encode(piece.text), generation=settings)
            for text in texts
            for piece in text
            if piece.is_sentence
        ]
        clean_up = bool(parameters.clean_up_tokenization_spaces)

        def join(translated: Sequence[str], whole: bool) -> list[str]:
            sentences = iter(translated)
            joined = ["".join(_in_place(sentences, text, whole=whole)) for text in texts]
            return [clean_up_spaces(text) for text in joined] if clean_up else joined

        return Draft(rows, self._tokenizer.decode, join)

    def _fit(self, piece: Piece, truncation: Truncation | None) -> list[Piece]:
        """The piece, or parts of it that the model can read."""
        limit = self._limits.max_tokens
        if not piece.is_sentence or (count := self._tokenizer.count(piece.text)) <= limit:
            return [piece]
        if truncation == "do_not_truncate":
            raise TooLarge(
                f"inputs may have sentences of at most {limit} tokens, got one of {count}", pointer="/inputs"
            )
        parts = self._tokenizer.split(piece.text, limit)
        if truncation is not None:
            parts = parts[:1]
        return [part for stretch in parts for part in _with_blank(stretch)]

    def _check_language(self, field: str, asked: str | None, known: tuple[str, ...]) -> None:
        if asked is not None and asked not in known:
            detail = f"parameters/{field} must be one of {', '.join(known)} for this model, got {asked!r}"
            raise InvalidInput(detail, pointer=f"/parameters/{field}")


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
