"""What the service itself can say no with, and the one table from any exception to an HTTP status."""

from typing import ClassVar

from models.errors import InvalidInput, TooLarge


class StartError(Exception):
    """The service cannot start; one sentence for its operator, with a next step."""


class UsageError(Exception):
    """The command cannot do what it was asked; one sentence and a next step."""


class SettingsError(Exception):
    """A setting cannot be used; one sentence that names it and, where it stands in a file, the line."""


class ServiceError(Exception):
    """The service cannot answer now; the request itself may be perfectly good.

    Args:
        detail: one sentence for the caller.

    `reason` is the label under which `heedful_rejected_total` counts it.
    """

    reason: ClassVar[str]

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Retryable(ServiceError):
    """The caller should come back after `retry_after_s` whole seconds, at least 1: the header `Retry-After`."""

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.detail, self.retry_after_s)


class Overloaded(Retryable):
    """As many rows or tokens wait as may wait (429)."""

    reason = "overloaded"


class Draining(Retryable):
    """The service is shutting down and takes nothing new (503)."""

    reason = "draining"


class NotReady(Retryable):
    """The model is still being loaded (503)."""

    reason = "not_ready"


class Broken(Retryable):
    """The device that the model computes on is lost; another process takes over (503)."""

    reason = "device_lost"


class DeadlinePassed(ServiceError):
    """The caller's deadline passed before the answer was there (504)."""

    reason = "deadline"


_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (TooLarge, 413),  # before InvalidInput, whose special case it is
    (InvalidInput, 422),
    (Overloaded, 429),
    (Draining, 503),
    (NotReady, 503),
    (Broken, 503),
    (DeadlinePassed, 504),
)


def status_of(error: Exception) -> int:
    """The HTTP status that answers `error`; 500 for everything that is our own fault, such as `ComputeError`."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
