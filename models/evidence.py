"""The explanation of an answer that is a stretch of a text: which words of question and context led to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models import attribution
from models.attribution import Span
from models.bundle import Bundle
from models.errors import InvalidInput
from models.explain import Attention, Explain, Explanation, Occlusion, Part, Unit, check_explain, rounded, shown
from models.task import Array, Output, Row, Solution, Tokens
from models.text import Tokenizer, Window

QUESTION, CONTEXT = "/inputs/question", "/inputs/context"


@dataclass(frozen=True, slots=True)
class _Word:
    """A word, and the tokens of the window that are part of it."""

    unit: Unit
    tokens: tuple[int, ...]


def check_span(asked: Explain, bundle: Bundle, tokenizer: Tokenizer, windows: Sequence[Window], context: str) -> None:
    """Refuse what `check_explain` refuses for the costliest window, since any may hold the answer.

    Raises:
        InvalidInput: also when occlusion finds no token in the vocabulary that stands for a word left out.
        TooLarge: see `check_explain`.
    """
    if "occlusion" in asked.method and tokenizer.mask_token_id is None:
        raise InvalidInput(
            "explain/method occlusion needs a mask or unknown token, the model's vocabulary has none",
            pointer="/explain/method",
        )
    tokens = max(len(window.tokens) for window in windows)
    words = max(len(attribution.words(context[slice(*_stretch(window))])) for window in windows)
    check_explain(asked, bundle, row_tokens=[tokens], left_out=[words + len(windows[0].question_spans)])


def explain_span(
    asked: Explain,
    windows: Sequence[Window],
    outputs: Sequence[Output],
    *,
    texts: tuple[str, str],
    answer: Span,
    at: int,
    tokenizer: Tokenizer,
    max_answer_tokens: int,
) -> Solution[Explanation]:
    """An explanation of a single part: the window in which the answer was found.

    Args:
        windows: all that were read, with their outputs.
        texts: question and context.
        answer: characters of the context; empty where there is none.
        at: which window gives it the largest logit. It need not hold all of an answer that was widened to words.
    """
    window = windows[at]
    first, last = _tokens(window, answer)
    row = Row(window.tokens, window.segments)
    words = _words(window, *texts)
    rows = [replace(row, purpose="attention")] if "attention" in asked.method else []
    if "occlusion" in asked.method:
        rows += [replace(row, tokens=_masked(row, word, tokenizer), purpose="score") for word in words]
    computed = list((yield rows) if rows else ())
    attention = occlusion = correlation = None
    span = slice(first, last + 1)
    if "attention" in asked.method:
        found = computed.pop(0).arrays["encoder_attention"]
        averaged = found.mean((0, 1))
        attention = Attention(
            kind="self-attention",
            weights=shown(averaged[span], asked),
            rollout=shown(attribution.rollout(np.eye(len(averaged))[span], found), asked),
            heads=shown(found[:, :, span], asked) if asked.heads == "each" else None,
            question_to_context=shown(averaged[window.question, window.context], asked),
            context_to_question=shown(averaged[window.context, window.question], asked),
        )
    if "occlusion" in asked.method:
        others = [(windows[index], output.arrays) for index, output in enumerate(outputs) if index != at]
        rest = _Rest.of(others, max_answer_tokens)
        with_all = rest.log_probability(window, outputs[at].arrays, first, last)
        changes = np.array([with_all - rest.log_probability(window, output.arrays, first, last) for output in computed])
        occlusion = Occlusion(log_probability=with_all, units=[word.unit for word in words], changes=rounded(changes))
        if attention is not None:
            attended = averaged[span].mean(0)
            correlation = attribution.rank_correlation(
                [float(attended[list(word.tokens)].sum()) for word in words], np.abs(changes).tolist()
            )
    units = _units(window, row, tokenizer, *texts)
    output = [
        unit.model_copy(
            update={"pointer": None}
            | ({} if unit.start is None or unit.end is None else _within(unit.start, unit.end, answer))
        )
        for unit in units[span]
    ]
    part = Part(source=units, output=output, attention=attention, occlusion=occlusion, rank_correlation=correlation)
    return Explanation(parts=[part])


def span_logits(start: Array, end: Array, max_answer_tokens: int) -> Array:
    """Logit of every span, float32 [start, length - 1]: start plus end logit, minus infinity past the last token.

    Args:
        start: float32 [tokens], end: float32 [tokens].
        max_answer_tokens: longest span.
    """
    tokens = len(start)
    longest = min(max_answer_tokens, tokens)
    padded = np.concatenate([end, np.full(longest - 1, -np.inf, np.float32)])
    logits: Array = start[:, None] + np.lib.stride_tricks.sliding_window_view(padded, longest)
    return logits


@dataclass(frozen=True, slots=True)
class _Rest:
    """What the windows without the answer weigh in its probability: they stay as they are; nothing is calibrated.

    Args:
        total: logarithm of the sum over their spans; minus infinity without any.
        nothing: their lowest logit of "no answer"; infinity without any.
    """

    max_answer_tokens: int
    total: float
    nothing: float

    @classmethod
    def of(cls, others: Sequence[tuple[Window, Mapping[str, Array]]], max_answer_tokens: int) -> "_Rest":
        rest = cls(max_answer_tokens, -np.inf, np.inf)
        for window, arrays in others:
            total, nothing, _, _ = rest.read(window, arrays)
            rest = cls(max_answer_tokens, float(np.logaddexp(rest.total, total)), min(rest.nothing, nothing))
        return rest

    def log_probability(self, window: Window, arrays: Mapping[str, Array], first: int, last: int) -> float:
        """Of the span between two tokens of the window, or of no answer between the first token and itself."""
        total, nothing, start, end = self.read(window, arrays)
        nothing = min(nothing, self.nothing)
        every = np.logaddexp.reduce([self.total, total, nothing])
        own = nothing if last == 0 else float(start[first] + end[last])
        return float(own - every)

    def read(self, window: Window, arrays: Mapping[str, Array]) -> tuple[float, float, Array, Array]:
        """The window's sum, its "no answer", and all logits of starts and ends."""
        start, end = (arrays[name] for name in ("start_logits", "end_logits"))
        logits = span_logits(start[window.context], end[window.context], self.max_answer_tokens)
        total = float(np.logaddexp.reduce(logits[np.isfinite(logits)].astype(np.float64)))
        return total, float(start[0] + end[0]), start, end


def _tokens(window: Window, answer: Span) -> Span:
    """The first and last token of the answer that the window holds; token 0 stands for no answer."""
    inside = [index for index, span in enumerate(window.spans) if span[0] < answer[1] and answer[0] < span[1]]
    return (window.context.start + inside[0], window.context.start + inside[-1]) if inside else (0, 0)


def _stretch(window: Window) -> Span:
    """Characters of the context that the window holds."""
    return (window.spans[0][0], window.spans[-1][1]) if window.spans else (0, 0)


def _words(window: Window, question: str, context: str) -> list[_Word]:
    begin, end = _stretch(window)
    fields = (
        (QUESTION, question, 0, window.question.start, window.question_spans),
        (CONTEXT, context[begin:end], begin, window.context.start, window.spans),
    )
    found = []
    for pointer, text, offset, first, spans in fields:
        for start, stop in attribution.words(text):
            unit = Unit(text=text[start:stop], pointer=pointer, start=start + offset, end=stop + offset)
            tokens = tuple(
                first + index
                for index, span in enumerate(spans)
                if span[0] < stop + offset and start + offset < span[1]
            )
            if tokens:
                found.append(_Word(unit, tokens))
    return found


def _masked(row: Row, word: _Word, tokenizer: Tokenizer) -> Tokens:
    tokens, mask = row.tokens.copy(), tokenizer.mask_token_id
    if mask is None:
        raise ValueError("the vocabulary has no token that stands for a word left out")
    tokens[list(word.tokens)] = mask
    return tokens


def _units(window: Window, row: Row, tokenizer: Tokenizer, question: str, context: str) -> list[Unit]:
    units = [Unit(text=tokenizer.piece(token)) for token in row.tokens.tolist()]
    for pointer, text, place, spans in (
        (QUESTION, question, window.question, window.question_spans),
        (CONTEXT, context, window.context, window.spans),
    ):
        for index, (start, end) in zip(range(place.start, place.stop), spans, strict=True):
            units[index] = Unit(text=text[start:end], pointer=pointer, start=start, end=end)
    return units


def _within(start: int, end: int, answer: Span) -> dict[str, int]:
    """Offsets into the answer, which may begin within a token."""
    return {"start": max(start, answer[0]) - answer[0], "end": min(end, answer[1]) - answer[0]}
