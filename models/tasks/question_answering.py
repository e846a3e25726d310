"""Extractive question answering: overlapping windows, and one ranking over the spans of all of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, Field

from models.bundle import Bundle, Calibration
from models.errors import BundleError, InvalidInput, TooLarge
from models.evidence import check_span, explain_span, span_logits
from models.explain import Explain, Explanation
from models.generation import Closed, check_text
from models.task import Array, Output, Row, Solution
from models.text import Tokenizer, Window

DOC_STRIDE = 128
MAX_ANSWER_TOKENS = 15
MIN_CONTEXT_TOKENS = 16
CANDIDATES_EACH_WINDOW = 20
MOST_WINDOW_TOKENS = 262_144
"""Of all windows together, where they share more than by default: what may wait for a model if no setting says else."""


class QuestionAnsweringInputs(Closed):
    """A question and the text that may hold its answer."""

    question: str
    context: str


class QuestionAnsweringParameters(Closed):
    """Hugging Face's question answering parameters."""

    top_k: int | None = Field(None, ge=1, description="So many answers, best first; 1 when left out.")
    doc_stride: int | None = Field(None, ge=0, description=f"Tokens that windows share; {DOC_STRIDE} when left out.")
    max_answer_len: int | None = Field(
        None, ge=1, description=f"Longest answer in tokens; {MAX_ANSWER_TOKENS} if left out."
    )
    max_seq_len: int | None = Field(None, ge=1, description="Tokens of one window; the model's limit if left out.")
    max_question_len: int | None = Field(
        None, ge=1, description="Cut the question to so many tokens; not cut if left out."
    )
    handle_impossible_answer: bool | None = Field(None, description="Allow an empty answer where there is none.")
    align_to_words: bool | None = Field(None, description="Widen answers to whole words; true when left out.")


class QuestionAnsweringRequest(Closed):
    """One question about one context."""

    inputs: QuestionAnsweringInputs
    parameters: QuestionAnsweringParameters | None = None
    explain: Explain | None = None


class QuestionAnsweringAnswer(Closed):
    """A span of the context: `context[start:end]`, and its probability among all spans and no answer."""

    answer: str
    score: float
    start: int
    end: int
    explanation: Explanation | None = Field(None, description="Of the best answer, where `explain` asks for it.")


@dataclass(frozen=True, slots=True)
class _Span:
    """Characters of the context, and the window that gives them this logit."""

    start: int
    end: int
    logit: float
    window: int


class QuestionAnswering:
    """Finds the answer's span with an encoder that gives `start_logits` and `end_logits` for each token."""

    id: ClassVar[str] = "question-answering"
    request_type: ClassVar[type[BaseModel]] = QuestionAnsweringRequest
    response_type: ClassVar[Any] = QuestionAnsweringAnswer | list[QuestionAnsweringAnswer]

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        if manifest.tokenizer is None:
            raise BundleError(f"{bundle.folder}: a question-answering bundle needs a tokenizer")
        self._bundle, self._limits = bundle, manifest.limits
        self._calibration = manifest.score_calibration
        self._tokenizer = Tokenizer(bundle.path(manifest.tokenizer), out_of_vocabulary=manifest.out_of_vocabulary)

    def solve(
        self, request: QuestionAnsweringRequest
    ) -> Solution[QuestionAnsweringAnswer | list[QuestionAnsweringAnswer]]:
        """One row for each window.

        Raises:
            InvalidInput: blank texts, or settings that this model cannot follow.
            TooLarge: texts over the limit, or a question that leaves no room for a context.
        """
        parameters = request.parameters or QuestionAnsweringParameters()
        question, context = request.inputs.question, request.inputs.context
        check_text(question, "inputs/question", self._limits)
        check_text(context, "inputs/context", self._limits)
        context_tokens = self._tokenizer.count_bare(context)
        if not context_tokens:
            raise InvalidInput(
                f"inputs/context must hold at least 1 token, got none in {len(context)} characters",
                pointer="/inputs/context",
            )
        top_k = parameters.top_k or 1
        if top_k > self._limits.max_top_k:
            raise _invalid("top_k", f"may be at most {self._limits.max_top_k} for this model, got {top_k}")
        windows = self._windows(question, context, context_tokens, parameters)
        if request.explain is not None:
            check_span(request.explain, self._bundle, self._tokenizer, windows, context)
        outputs = yield [Row(window.tokens, window.segments) for window in windows]
        max_answer_tokens = parameters.max_answer_len or MAX_ANSWER_TOKENS
        answers, at = _answers(
            context,
            windows,
            outputs,
            calibration=self._calibration,
            max_answer_tokens=max_answer_tokens,
            to_words=parameters.align_to_words is not False,
            may_be_empty=bool(parameters.handle_impossible_answer),
        )
        answers = answers[:top_k]
        if request.explain is not None:
            explanation = yield from explain_span(
                request.explain,
                windows,
                outputs,
                texts=(question, context),
                answer=(answers[0].start, answers[0].end),
                at=at,
                tokenizer=self._tokenizer,
                max_answer_tokens=max_answer_tokens,
            )
            answers[0] = answers[0].model_copy(update={"explanation": explanation})
        return answers[0] if top_k == 1 else answers

    def _windows(
        self, question: str, context: str, context_tokens: int, parameters: QuestionAnsweringParameters
    ) -> list[Window]:
        max_tokens = parameters.max_seq_len or self._limits.max_tokens
        if max_tokens > self._limits.max_tokens:
            raise _invalid("max_seq_len", f"may be at most {self._limits.max_tokens} for this model, got {max_tokens}")
        asked = self._tokenizer.count_bare(question)
        kept = min(asked, parameters.max_question_len or asked)
        room = max_tokens - kept - self._tokenizer.pair_specials
        if room < MIN_CONTEXT_TOKENS:
            limit = max_tokens - self._tokenizer.pair_specials - MIN_CONTEXT_TOKENS
            if limit < 1:
                least = self._tokenizer.pair_specials + MIN_CONTEXT_TOKENS + 1
                raise _invalid("max_seq_len", f"must be at least {least}, got {max_tokens}")
            raise TooLarge(
                f"inputs/question may have at most {limit} tokens beside its context, got {kept};"
                " parameters/max_question_len cuts it",
                pointer="/inputs/question",
            )
        stride = _stride(parameters.doc_stride, room, context_tokens, max_tokens)
        return list(
            self._tokenizer.question_windows(
                question,
                context,
                max_tokens=max_tokens,
                doc_stride=stride,
                max_question_tokens=kept,
            )
        )


def _stride(asked: int | None, room: int, context_tokens: int, max_tokens: int) -> int:
    """How many tokens windows share, each with `room` for a context of so many tokens.

    Raises:
        InvalidInput: windows would share all that they have.
        TooLarge: there would be too many; never where windows share no more than they do by default.
    """
    default = min(DOC_STRIDE, room // 2)
    if asked is None or asked <= default:
        return default if asked is None else asked
    if asked >= room:
        raise _invalid("doc_stride", f"must be below the {room} tokens that a window has for the context, got {asked}")
    behind_first = max(context_tokens - room, 0)
    most = max(room - math.ceil(behind_first / max(MOST_WINDOW_TOKENS // max_tokens - 1, 1)), default)
    if asked > most:
        raise TooLarge(
            f"parameters/doc_stride may be at most {most} for a context of {context_tokens} tokens, whose windows may"
            f" have {MOST_WINDOW_TOKENS} tokens together, got {asked}",
            pointer="/parameters/doc_stride",
        )
    return asked


def _invalid(field: str, detail: str) -> InvalidInput:
    return InvalidInput(f"parameters/{field} {detail}", pointer=f"/parameters/{field}")


def _answers(
    context: str,
    windows: Sequence[Window],
    outputs: Sequence[Output],
    *,
    calibration: Calibration | None,
    max_answer_tokens: int,
    to_words: bool,
    may_be_empty: bool,
) -> tuple[list[QuestionAnsweringAnswer], int]:
    """Distinct answers of all windows, best first, and the window of the best.

    The probabilities are one softmax over every span of every window and the best-founded "no answer", whose
    logit is the lowest that any window gives to its first token (so does the evaluation of SQuAD 2.0, Rajpurkar
    et al. 2018). What they become by the bundle's calibration keeps their order.
    """
    spans: list[_Span] = []
    total, nothing = -np.inf, _Span(0, 0, np.inf, 0)
    for at, (window, output) in enumerate(zip(windows, outputs, strict=True)):
        start, end = (output.arrays[name] for name in ("start_logits", "end_logits"))
        nothing = min(nothing, _Span(0, 0, float(start[0] + end[0]), at), key=attrgetter("logit"))
        logits = span_logits(start[window.context], end[window.context], max_answer_tokens)
        total = float(np.logaddexp(total, np.logaddexp.reduce(logits[np.isfinite(logits)].astype(np.float64))))
        spans.extend(_best_spans(window, at, logits, to_words))
    total = float(np.logaddexp(total, nothing.logit))
    if may_be_empty:
        spans.append(nothing)
    best: dict[tuple[int, int], _Span] = {}
    for span in spans:
        key = _without_blanks(context, span)
        best[key] = max(best.get(key, span), span, key=attrgetter("logit"))
    ranked = sorted(best.items(), key=lambda item: -item[1].logit)
    answers = [
        QuestionAnsweringAnswer(
            answer=context[start:end],
            score=calibrated(float(np.exp(span.logit - total)), calibration),
            start=start,
            end=end,
        )
        for (start, end), span in ranked
    ]
    return answers, ranked[0][1].window


def calibrated(probability: float, calibration: Calibration | None) -> float:
    """How often an answer to which the model gives this probability is right (Platt 1999): a line through log-odds."""
    if calibration is None or not 0 < probability < 1:
        return probability
    odds = np.log(probability) - np.log1p(-probability)
    return float(1 / (1 + np.exp(-(calibration.slope * odds + calibration.intercept))))


def _without_blanks(context: str, span: _Span) -> tuple[int, int]:
    """Byte-level and SentencePiece tokens carry the blank before a word; a span of nothing else is left as it is."""
    found = context[span.start : span.end]
    if not found.strip():
        return span.start, span.end
    return span.start + len(found) - len(found.lstrip()), span.start + len(found.rstrip())


def _best_spans(window: Window, at: int, logits: Array, to_words: bool) -> list[_Span]:
    keep = min(CANDIDATES_EACH_WINDOW, logits.size)
    flat = logits.ravel()
    places = np.argpartition(-flat, keep - 1)[:keep]
    bounds = window.words if to_words else window.spans
    found = []
    for place in places.tolist():
        first, extra = divmod(place, logits.shape[1])
        if np.isfinite(flat[place]):
            found.append(_Span(bounds[first][0], bounds[first + extra][1], float(flat[place]), at))
    return found
