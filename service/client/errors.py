"""What a call can end with in place of an answer: problems that the service names, and silence."""

from collections.abc import Sequence

from service.contract import FieldError, Problem


class ClientError(Exception):
    """A call brought no answer; one sentence says why.

    Args:
        detail: the sentence.
        request_id: what the call was sent with as `X-Request-ID`; the service's log has it too.
    """

    def __init__(self, detail: str, request_id: str) -> None:
        super().__init__(detail, request_id)
        self.detail = detail
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.detail} (request {self.request_id})"


class Unreachable(ClientError):
    """No connection to the service, or none of the client's own that was free in time; nothing was sent."""


class ConnectionLost(ClientError):
    """The connection broke after the request had been sent, or midway through a stream."""


class TimedOut(ClientError):
    """The answer was not there within the caller's timeout."""


class UnexpectedAnswer(ClientError):
    """A success without the answer's shape: another service, or a proxy, lives at this address."""


class ProblemError(ClientError):
    """The service, or a proxy before it, refused the request.

    Args:
        problem: RFC 9457, as the service sent it, or made from another's plain answer.
        retry_after_s: whole seconds after which to come back, where the answer names them.
    """

    def __init__(self, problem: Problem, retry_after_s: int | None = None) -> None:
        super().__init__(problem.detail, problem.request_id)
        self.args = (problem, retry_after_s)  # what a pickled copy is made from
        self.problem = problem
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.status} {self.problem.title}: {super().__str__()}"

    @property
    def status(self) -> int:
        """Of HTTP."""
        return self.problem.status

    @property
    def errors(self) -> Sequence[FieldError]:
        """The fields that cannot be accepted, each with its JSON pointer."""
        return self.problem.errors or ()


class InvalidRequest(ProblemError):
    """400, 415 or 422: the request itself has to change."""


class NotServed(ProblemError):
    """404: no such task or model."""


class TooLarge(ProblemError):
    """413: over a limit that the message names."""


class Overloaded(ProblemError):
    """429: as much waits as may wait."""


class Unavailable(ProblemError):
    """503: the model is starting or the service is shutting down."""


class DeadlinePassed(ProblemError):
    """504: the caller's timeout passed in the service."""


_OF_STATUS: dict[int, type[ProblemError]] = {
    400: InvalidRequest,
    404: NotServed,
    413: TooLarge,
    415: InvalidRequest,
    422: InvalidRequest,
    429: Overloaded,
    503: Unavailable,
    504: DeadlinePassed,
}


def problem_error(problem: Problem, retry_after_s: int | None = None) -> ProblemError:
    """The error of the problem's status; `ProblemError` itself for every other, such as 500."""
    return _OF_STATUS.get(problem.status, ProblemError)(problem, retry_after_s)
