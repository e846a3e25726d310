"""A text while it is being written: what a row has brought so far becomes events for the caller, in reading order."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

from models.task import Draft, Output, Solution
from service.callers import Timing
from service.contract import StreamDetails, StreamEvent, StreamTiming, StreamToken
from service.engine import Engine
from service.rows import Progress

HELD_CHARACTERS = 24
"""What stands behind the last blank is held back, since the next token may change it (a character of several tokens,
a space before punctuation); in scripts without blanks, at most so many characters."""

REPLACEMENT_CHARACTER = "\N{REPLACEMENT CHARACTER}"
"""Stands for every byte of a run of byte pieces that is no valid UTF-8 yet."""


class Transcript:
    """Turns the progress of rows, which are computed side by side, into tokens in reading order.

    Args:
        draft: of a single text.
    """

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._progress = [Progress(row, (), None) for row in range(len(draft.rows))]
        self._row = 0  # being read; those before it were read to their end
        self._told = 0  # tokens told of it
        self._before = ""  # the end of what those before it wrote, from where on it may still change
        self._sent: list[str] = []
        self._sent_here = ""  # what was sent of `_before` and of what the row writes behind it

    def hear(self, progress: Progress) -> Iterator[StreamToken]:
        """The tokens that can be told now."""
        if len(progress.tokens) >= len(self._progress[progress.row].tokens):
            self._progress[progress.row] = progress
        while self._row < len(self._progress):
            current = self._progress[self._row]
            for end in range(self._told + 1, len(current.tokens) + 1):
                yield StreamToken(id=current.tokens[end - 1], text=self._certain(current.tokens[:end]))
            self._told = max(self._told, len(current.tokens))
            if current.finish is None:
                return
            self._before = self._with(current.tokens)
            self._let_go()
            self._row, self._told = self._row + 1, 0

    def rest(self, text: str) -> str:
        """What of the whole text has not been told."""
        return text.removeprefix("".join(self._sent))

    @property
    def was_cut(self) -> bool:
        """Whether a row reached its `max_new_tokens`."""
        return any(progress.finish == "length" for progress in self._progress)

    def _with(self, tokens: tuple[int, ...]) -> str:
        return self._draft.add(self._before, self._row, self._draft.decode(tokens))

    def _certain(self, tokens: tuple[int, ...]) -> str:
        text = self._draft.tidy(self._with(tokens))
        start = max(len(text) - HELD_CHARACTERS, 0)  # no more is looked at: this is done for every token of a long text
        tail = text[start:]
        end = start + len(tail[: _last_blank(tail)].rstrip())
        if (incomplete := text.find(REPLACEMENT_CHARACTER, len(self._sent_here))) >= 0:
            end = min(end, incomplete)
        if end <= len(self._sent_here) or not text.startswith(self._sent_here):
            return ""
        certain = text[len(self._sent_here) : end]
        self._sent.append(certain)
        self._sent_here = text[:end]
        return certain

    def _let_go(self) -> None:
        """Forget the words that were sent and that no row changes any more: each token would copy all of them."""
        words = self._before[: _last_blank(self._before)].rstrip()
        settled = self._draft.tidy(words)
        if self._sent_here.startswith(settled):
            self._before = self._before[len(words) :]
            self._sent_here = self._sent_here[len(settled) :]


def _last_blank(text: str) -> int:
    return next((place for place in reversed(range(len(text))) if text[place].isspace()), 0)


async def stream(
    engine: Engine, drafted: Callable[[], Draft], deadline: float, *, in_thread: bool
) -> AsyncGenerator[StreamEvent]:
    """Let the engine write a text and tell every token. Raises what `drafted` and `Engine.answer` raise, also midway.

    When it is closed or cancelled, the rows leave the model before the next step.
    """
    drafts: list[Draft] = []

    def solve() -> Solution[tuple[list[str], Sequence[Output]]]:
        drafts.append(drafted())
        return (yield from drafts[0].write())

    heard: dict[int, Progress] = {}  # the latest of each row; all of them would pile up where the caller does not read
    news = asyncio.Event()

    def follow(progress: Progress) -> None:
        heard[progress.row] = progress
        news.set()

    written = engine.answer(solve(), deadline=deadline, follower=follow, in_thread=in_thread)
    answer = asyncio.ensure_future(written)
    answer.add_done_callback(lambda _: news.set())
    transcript: Transcript | None = None
    index = 0
    try:
        while heard or not answer.done():
            await news.wait()
            news.clear()
            while heard:
                _, progress = heard.popitem()
                transcript = transcript or Transcript(drafts[0])
                for token in transcript.hear(progress):
                    yield StreamEvent(index=index, token=token)
                    index += 1
        ((text,), _), timing = await answer
        transcript = transcript or Transcript(drafts[0])
        details = _details(timing, was_cut=transcript.was_cut)
        rest = StreamToken(id=None, text=transcript.rest(text))
        yield StreamEvent(index=index, token=rest, generated_text=text, details=details)
    finally:
        answer.cancel()


def _details(timing: Timing, *, was_cut: bool) -> StreamDetails:
    return StreamDetails(
        finish_reason="length" if was_cut else "eos_token",
        generated_tokens=timing.generated_tokens,
        timing_ms=StreamTiming(queue=timing.queue_s * 1e3, encode=timing.encode_s * 1e3, decode=timing.decode_s * 1e3),
    )
