"""The explanation of a written text: which words of the source led to which tokens, sentence by sentence."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models import attribution
from models.attribution import Span
from models.bundle import Bundle
from models.explain import Attention, Explain, Explanation, Occlusion, Part, Unit, check_explain, rounded, shown
from models.task import Array, Draft, Origin, Output, Row, Solution, Tokens


def origins_of(text: int, whole: str, pieces: Sequence[str]) -> Iterator[Origin]:
    """Where the pieces of a caller's text stand in it, one behind the other.

    Args:
        text: which of the caller's texts `whole` is.
    """
    behind = 0
    for piece in pieces:
        start = whole.index(piece, behind)
        yield Origin(text, start, piece)
        behind = start + len(piece)


def check_texts(asked: Explain, draft: Draft, bundle: Bundle, *, is_stream: bool) -> None:
    """Refuse what `check_explain` refuses. Raises what it raises."""
    check_explain(
        asked,
        bundle,
        row_tokens=[len(row.tokens) for row in draft.rows],
        left_out=[len(attribution.words(origin.piece)) for origin in draft.origins],
        is_stream=is_stream,
    )


def write_texts(draft: Draft, asked: Explain | None, bundle: Bundle) -> Solution[list[tuple[str, Explanation | None]]]:
    """The texts of a draft, each with its explanation where one is asked for."""
    texts, outputs = yield from draft.write()
    if asked is None:
        return [(text, None) for text in texts]
    explanations = yield from _explanations(asked, draft, outputs, texts, bundle)
    return list(zip(texts, explanations, strict=True))


def _explanations(
    asked: Explain, draft: Draft, outputs: Sequence[Output], texts: Sequence[str], bundle: Bundle
) -> Solution[list[Explanation]]:
    """An explanation for each text: a part for each row that wrote a stretch of it.

    Args:
        outputs: of the draft's rows.
        texts: the answer's.
    """
    max_tokens, generation = bundle.manifest.limits.max_tokens, bundle.manifest.generation
    end_token_id = generation.eos_token_id if generation else 0
    written = list(_written(draft, outputs, texts, end_token_id))
    rows: list[Row] = []
    for part in written:
        if "attention" in asked.method:
            rows.append(replace(part.row, generation=None, purpose="attention", target=part.target))
        if "occlusion" in asked.method:
            sources = [part.row.tokens, *(_without(draft, part, word)[:max_tokens] for word in part.words)]
            rows += [Row(source, purpose="score", target=part.target) for source in sources]
    computed = iter((yield rows) if rows else ())
    parts: list[list[Part]] = [[] for _ in texts]
    for part in written:
        attention = next(computed).arrays if "attention" in asked.method else None
        scores = None
        if "occlusion" in asked.method:
            scores = np.stack([next(computed).arrays["log_probabilities"] for _ in range(len(part.words) + 1)])
        parts[part.origin.text].append(_part(asked, part, attention, scores))
    return [Explanation(parts=each) for each in parts]


@dataclass(frozen=True, slots=True, eq=False)
class _Written:
    """A row with what it wrote.

    Args:
        target: int64, the tokens that it wrote, end token included.
        words: of its source, in the origin's text.
        spans: of the source's tokens, likewise.
    """

    row: Row
    origin: Origin
    target: Tokens
    words: Sequence[Span]
    spans: Sequence[Span | None]
    source: list[Unit]
    output: list[Unit]


def _written(draft: Draft, outputs: Sequence[Output], texts: Sequence[str], end_token_id: int) -> Iterator[_Written]:
    decoded = [draft.decode(output.tokens) for output in outputs]
    for index, (row, origin, output) in enumerate(zip(draft.rows, draft.origins, outputs, strict=True)):
        # A forced end counts as the limit's, but where it is all that was written there is nothing else to explain.
        ended = (end_token_id,) if output.finish == "stop" or not output.tokens else ()
        answer = texts[origin.text]
        start, end = (
            min(len(draft.join(decoded[:count], False)[origin.text]), len(answer)) for count in (index, index + 1)
        )
        found = attribution.token_spans(output.tokens, draft.decode)
        places = [*attribution.placed(found, decoded[index], answer, start, end), *(None for _ in ended)]
        target = np.array([*output.tokens, *ended], np.int64)
        spans = draft.reader.spans(origin.piece)
        pointer = "/inputs" if len(texts) == 1 else f"/inputs/{origin.text}"
        yield _Written(
            row,
            origin,
            target,
            attribution.words(origin.piece),
            spans,
            _units(draft, row.tokens, spans, origin.piece, pointer=pointer, offset=origin.start),
            _units(draft, target, places, answer),
        )


def _units(
    draft: Draft,
    tokens: Tokens,
    spans: Sequence[Span | None],
    text: str,
    *,
    pointer: str | None = None,
    offset: int = 0,
) -> list[Unit]:
    """Tokens with the characters of `text` that they stand for, which begins at `offset` of the field."""
    return [
        Unit(text=draft.reader.piece(token), pointer=pointer)
        if span is None
        else Unit(text=text[slice(*span)], pointer=pointer, start=span[0] + offset, end=span[1] + offset)
        for token, span in zip(tokens.tolist(), spans, strict=True)
    ]


def _without(draft: Draft, part: _Written, word: Span) -> Tokens:
    return draft.reader.encode(attribution.without(part.origin.piece, word))


def _part(asked: Explain, part: _Written, arrays: Mapping[str, Array] | None, scores: Array | None) -> Part:
    """Args: scores: float32 [1 + words, target], log-probabilities with nothing and with each word left out."""
    words = [
        Unit(
            text=part.origin.piece[start:end],
            pointer=part.source[0].pointer,
            start=start + part.origin.start,
            end=end + part.origin.start,
        )
        for start, end in part.words
    ]
    attention = occlusion = correlation = None
    if arrays is not None:
        cross = arrays["cross_attention"]
        copy = arrays.get("copy_attention")
        averaged = cross.mean((0, 1)) if copy is None else copy
        attention = Attention(
            kind="cross-attention" if copy is None else "copy",
            weights=shown(averaged, asked),
            rollout=shown(attribution.rollout(averaged, arrays["encoder_attention"]), asked),
            heads=shown(cross, asked) if asked.heads == "each" else None,
            copy_share=None if copy is None else rounded(arrays["copy_share"]),
        )
    if scores is not None:
        changes = scores[0] - scores[1:]
        occlusion = Occlusion(
            log_probability=float(scores[0].sum()),
            units=words,
            changes=rounded(changes.sum(1)),
            weights=shown(changes.T, asked),
        )
        if arrays is not None:
            attended = attribution.by_word(averaged.sum(0), part.spans, part.words)
            correlation = attribution.rank_correlation(attended.tolist(), np.abs(changes.sum(1)).tolist())
    return Part(
        source=part.source, output=part.output, attention=attention, occlusion=occlusion, rank_correlation=correlation
    )
