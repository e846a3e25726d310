"""Summarization: one summary for each window of a text, joined."""

from collections.abc import Sequence
from itertools import islice, starmap
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from models.bundle import Bundle
from models.errors import BundleError, TooLarge
from models.explain import Explain, Explanation
from models.generation import Closed, GenerateParameters, WritingRequest, check_writing, generation, rows_of
from models.sentences import pieces
from models.surface import Surface
from models.task import Draft, Solution
from models.text import Tokenizer, Truncation, clean_up_spaces
from models.writing import check_texts, origins_of, write_texts


class SummarizationParameters(Closed):
    """Hugging Face's summarization parameters."""

    clean_up_tokenization_spaces: bool | None = Field(None, description="Remove spaces before English punctuation.")
    truncation: Truncation | None = Field(
        None,
        description="A text over the model's limit is summarized in windows when left out, cut by `longest_first` and"
        " `only_first`, refused by `do_not_truncate`.",
    )
    generate_parameters: GenerateParameters | None = None


class SummarizationRequest(WritingRequest):
    """One text or several to summarize."""

    parameters: SummarizationParameters | None = None
    explain: Explain | None = None


class SummarizationAnswer(Closed):
    """The summary of one text."""

    summary_text: str
    explanation: Explanation | None = Field(None, description="Where `explain` asks for it.")


class Summarization:
    """Summarizes with an encoder-decoder bundle."""

    id: ClassVar[str] = "summarization"
    request_type: ClassVar[type[BaseModel]] = SummarizationRequest
    response_type: ClassVar[Any] = list[SummarizationAnswer]

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, manifest = bundle, bundle.manifest
        if manifest.tokenizer is None or manifest.generation is None:
            raise BundleError(f"{bundle.folder}: a summarization bundle needs a tokenizer and generation defaults")
        self._defaults = manifest.generation
        self._limits = manifest.limits
        self._language = manifest.languages.source[0]
        self._tokenizer = Tokenizer(
            bundle.path(manifest.tokenizer),
            prefix=manifest.generation.prefix,
            out_of_vocabulary=manifest.out_of_vocabulary,
        )

    def solve(self, request: SummarizationRequest) -> Solution[list[SummarizationAnswer]]:
        """Summarize each text.

        Raises:
            InvalidInput: a blank text, or decoding that the model cannot do.
            TooLarge: too many texts, a text that is too long, or one over a single window with `do_not_truncate`.
        """
        written = yield from write_texts(self.draft(request), request.explain, self._bundle)
        return [SummarizationAnswer(summary_text=text, explanation=explanation) for text, explanation in written]

    def draft(self, request: SummarizationRequest) -> Draft:
        """One row for each window of each text. Raises what `solve` raises."""
        parameters = request.parameters or SummarizationParameters()
        check_writing(request, self._limits)
        settings = generation(parameters.generate_parameters, self._defaults, self._limits)
        texts = [self._windows(text.strip(), parameters.truncation) for text in request.inputs]
        windows = [window for text in texts for window in text]
        origins = [
            origin for index, text in enumerate(texts) for origin in origins_of(index, request.inputs[index], text)
        ]
        rows = rows_of(map(self._tokenizer.encode, windows), settings)
        surfaces = [Surface(window) for window in windows] if self._tokenizer.lower_cases else []
        tidy = clean_up_spaces if parameters.clean_up_tokenization_spaces else str

        def restored(row: int, summary: str) -> str:
            return surfaces[row].restore(summary.strip()) if surfaces else summary.strip()

        def join(summaries: Sequence[str], _whole: bool) -> list[str]:
            left = starmap(restored, enumerate(summaries))
            return [tidy(_join(list(islice(left, len(text))))) for text in texts]

        def add(so_far: str, row: int, summary: str) -> str:
            goes_on = row > 0 and origins[row].text == origins[row - 1].text
            return _join([so_far, restored(row, summary)] if goes_on else [restored(row, summary)])

        draft = Draft(rows, self._tokenizer.decode, join, add, tidy, origins, self._tokenizer)
        if request.explain is not None:
            check_texts(request.explain, draft, self._bundle, is_stream=request.stream)
        return draft

    def _windows(self, text: str, truncation: Truncation | None) -> list[str]:
        """The text in stretches that the model can read, cut between sentences where they allow it."""
        limit = self._limits.max_tokens
        if (count := self._tokenizer.count(text)) <= limit:
            return [text]
        if truncation == "do_not_truncate":
            raise TooLarge(
                f"inputs may have at most {limit} tokens with do_not_truncate, got {count}", pointer="/inputs"
            )
        if truncation is not None:
            return self._tokenizer.split(text, limit)[:1]
        windows = [""]
        room = limit - self._tokenizer.single_specials
        for piece in pieces(text, self._language):
            length = self._tokenizer.count_bare(piece.text)
            if length > room and windows[-1].strip():
                windows.append("")
                room = limit - self._tokenizer.single_specials
            windows[-1] += piece.text
            room -= length
        return [stretch for window in windows for stretch in self._tokenizer.split(window, limit) if stretch.strip()]


def _join(summaries: list[str]) -> str:
    """One text of several summaries, each ended like a sentence; a single one is left as it is."""
    if len(summaries) == 1:
        return summaries[0]
    return " ".join(summary if summary.endswith((".", "!", "?")) else f"{summary}." for summary in summaries if summary)
