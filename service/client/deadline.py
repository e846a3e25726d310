"""What is left of a call's timeout, for whatever a transport waits for: a connection, the next piece of an answer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import cast

import httpx

LEAST_S = 1e-3  # a transport takes no time that is not above zero
PHASES = ("pool", "connect", "write", "read")
# The transport's own timeout, which knows what was waited for, comes before the one around all that it waits for.
GRACE_S = 0.1


class Left(dict[str, float]):
    """httpx's timeouts of a request, each of which is what is left when its phase begins.

    httpx would give each phase, and each read within it, the whole timeout anew.
    """

    def __init__(self, left_s: Callable[[], float]) -> None:
        super().__init__(dict.fromkeys(PHASES, left_s()))
        self._left_s = left_s

    def get(self, _phase: str, _default: object = None) -> float:
        """How the transport asks."""
        return max(self._left_s(), LEAST_S)


class Bounded(httpx.SyncByteStream):
    """The body of a response, which has to end in time.

    Args:
        response: whose body it is.
        left_s: seconds of the call.
    """

    def __init__(self, response: httpx.Response, left_s: Callable[[], float]) -> None:
        self._stream, self._request = cast("httpx.SyncByteStream", response.stream), response.request
        self._left_s = left_s

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            if self._left_s() <= 0:
                self.close()
                raise httpx.ReadTimeout("", request=self._request)
            yield chunk

    def close(self) -> None:
        """Close the body."""
        self._stream.close()


class AsyncBounded(httpx.AsyncByteStream):
    """`Bounded` for asyncio."""

    def __init__(self, response: httpx.Response, left_s: Callable[[], float]) -> None:
        self._stream, self._request = cast("httpx.AsyncByteStream", response.stream), response.request
        self._left_s = left_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._stream)
        while True:
            try:
                async with asyncio.timeout(self._left_s()):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise httpx.ReadTimeout("", request=self._request) from None
            yield chunk

    async def aclose(self) -> None:
        """Close the body."""
        await self._stream.aclose()
