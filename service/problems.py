"""From any exception to the RFC 9457 problem that the caller reads."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from models.errors import InvalidInput
from service.contract import FieldError, Problem
from service.errors import Retryable, ServiceError, status_of

logger = logging.getLogger("heedful.gateway")

SHOWN_CHARACTERS = 80


def problem(
    request: Request,
    status: int,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response that tells the caller what went wrong."""
    request_id = request.scope.get("state", {}).get("request_id", "")
    body = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        error=detail,
        request_id=request_id,
        errors=list(errors) or None,
    )
    return Response(
        to_json(body, exclude_none=True),
        status,
        headers=headers,
        media_type="application/problem+json",
    )


def install(app: FastAPI) -> None:
    """Answer every exception of the app with a problem."""
    for kind, handler in _HANDLERS:
        app.add_exception_handler(kind, handler)


async def problem_of(request: Request, error: Exception) -> Response:
    """The response to an exception, for what has begun to answer before it was raised."""
    return await next(handler for kind, handler in _HANDLERS if isinstance(error, kind))(request, error)


def status_of_any(error: Exception) -> int:
    """The HTTP status that the handlers below give to an exception."""
    if isinstance(error, HTTPException):
        return error.status_code
    return 422 if isinstance(error, RequestValidationError) else status_of(error)


async def _http(request: Request, error: Exception) -> Response:
    error = cast("HTTPException", error)
    detail = error.detail
    if error.status_code == 404 and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = f"nothing is served at {request.url.path}; GET /v1/models lists the models and their routes"
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        detail = f"{request.url.path} answers {allowed}, got {request.method}"
    return problem(request, error.status_code, detail, headers=error.headers)


async def _validation(request: Request, error: Exception) -> Response:
    found = [_field_error(entry) for entry in cast("RequestValidationError", error).errors()]
    return problem(request, 422, "; ".join(entry.detail for entry in found[:3]), errors=found)


async def _invalid_input(request: Request, error: Exception) -> Response:
    error = cast("InvalidInput", error)
    field = FieldError(pointer=error.pointer, detail=error.detail)
    return problem(request, status_of(error), error.detail, errors=[field])


async def _service(request: Request, error: Exception) -> Response:
    error = cast("ServiceError", error)
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Retryable) else None
    return problem(request, status_of(error), error.detail, headers=headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    request_id = request.scope.get("state", {}).get("request_id", "")
    line = "request_id=%s %s %s failed"
    fields = {"fields": {"request_id": request_id}}
    logger.error(line, request_id, request.method, request.url.path, exc_info=error, extra=fields)
    return problem(request, 500, f"the service failed on this request; its log has the reason under {request_id}")


_HANDLERS: tuple[tuple[type[Exception], Callable[[Request, Exception], Awaitable[Response]]], ...] = (
    (HTTPException, _http),
    (RequestValidationError, _validation),
    (InvalidInput, _invalid_input),
    (ServiceError, _service),
    (Exception, _unexpected),
)


def _field_error(entry: Mapping[str, Any]) -> FieldError:
    loc = entry["loc"][1:] if entry["loc"][0] == "body" else entry["loc"]  # a field may have that name, too
    path = [str(part) for part in loc]
    pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)
    field = "/".join(path) or "the body"
    if entry["type"] == "missing":
        return FieldError(pointer=pointer, detail=f"{field} is required")
    if entry["type"] == "extra_forbidden":
        return FieldError(pointer=pointer, detail=f"{field} is not a field of this request")
    rule = entry["msg"].removeprefix("Input ")
    return FieldError(pointer=pointer, detail=f"{field} {rule}, got {_shown(entry['input'])}")


def _shown(value: object) -> str:
    """The start of a value as JSON, for a message."""
    text = to_json(value, fallback=repr).decode()
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text)} characters)"
