"""The errors that models raise; HTTP status codes belong to the service."""


class ModelError(Exception):
    """Anything that went wrong on the way from a request to an answer."""


class InvalidInput(ModelError):
    """The caller's input cannot be answered; raised by a task before it yields its first row.

    Args:
        detail: one sentence that names the field, the limit and what was given.
        pointer: JSON pointer (RFC 6901) of the field in the request body, such as `/parameters/top_k`.
    """

    def __init__(self, detail: str, *, pointer: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.detail, self.pointer)


class TooLarge(InvalidInput):
    """The input is well formed but exceeds a limit of the bundle; raised by a task before it yields its first row."""


class BundleError(ModelError):
    """A bundle on disk cannot be trusted or understood; raised while a bundle is opened or loaded."""


class ComputeError(ModelError):
    """The model failed on this row although it ran alone; raised by the engine after the second try."""


class DeviceLost(ModelError):
    """The device does not compute any more, and only a new process can use it again; raised by whatever ran there."""


def _rebuild(kind: type[InvalidInput], detail: str, pointer: str) -> InvalidInput:
    return kind(detail, pointer=pointer)
