"""The HTTP contract: typed routes made from the models' cards, and the operational routes beside them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.json_schema import models_json_schema
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from models.generation import WritingRequest
from models.tasks import TASKS
from service.catalogue import catalogues
from service.contract import ModelCard, Problem, StreamEvent
from service.errors import NotReady, ServiceError
from service.hosting import READY_AGAIN_S, Call, Host
from service.logs import note
from service.metrics import Observer
from service.playground import pages
from service.problems import install, problem_of, status_of_any
from service.settings import Settings
from service.tracing import RequestSpan
from service.transport import (
    CLIENT_CLOSED_REQUEST,
    ClientGoneError,
    EventStream,
    RequestIds,
    deadline,
    let_go,
    parsed,
    read_body,
    unless_gone,
)

LONG_BODY_BYTES = 4_000  # of short sentences takes up to 20 ms to tokenize, so long nobody else would be answered
MOST_FAULTS = 100  # to tell a million would take half a minute and gigabytes, and nobody else would be answered
PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"

Handler = Callable[[Request], Awaitable[Response]]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class Status(BaseModel):
    """Whether the service lives or is ready."""

    status: str


class _App(FastAPI):
    """FastAPI with the schemas of what it does not make responses of, problems and events, and behind `TaskRoutes`."""

    handlers: Mapping[str, Handler] = MappingProxyType({})

    def build_middleware_stack(self) -> ASGIApp:
        return RequestIds(TaskRoutes(super().build_middleware_stack(), self.handlers))

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            super().openapi()["components"]["schemas"] |= _SCHEMAS["$defs"]
        return super().openapi()


_SCHEMAS = models_json_schema(
    [(Problem, "serialization"), (StreamEvent, "serialization")], ref_template="#/components/schemas/{model}"
)[1]


def create_app(host: Host, settings: Settings, *, lifespan: Lifespan | None = None) -> FastAPI:
    """The ASGI application in front of a host's models.

    Args:
        host: answers the requests.
        settings: limits and timeouts.
        lifespan: run around the application's life, such as starting the engines.
    """
    app = _App(
        title="Heedful",
        summary="Translation, summarization, question answering and recommendation by attention models.",
        version=version("heedful"),
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    install(app)
    for router in _tasks(host):
        app.include_router(router)
    app.include_router(pages())
    app.include_router(_operations(host))
    app.include_router(catalogues(host.cards, settings), responses=_problems(422))
    app.handlers = {route: _handler(host, card, settings) for card in host.cards for route in card.routes}
    return app


class TaskRoutes:
    """ASGI middleware: a request to a task goes straight to its handler, past a router that would try every route."""

    def __init__(self, app: ASGIApp, handlers: Mapping[str, Handler]) -> None:
        self._app, self._handlers = app, handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._handlers.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await handler(request)
        except Exception as error:  # noqa: BLE001 - every exception is told to the caller
            response = await problem_of(request, error)
            let_go(error)
        await response(scope, receive, send)


def _operations(host: Host) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", summary="Alive")
    async def healthz() -> Status:
        return Status(status="alive")

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", summary="Ready: every model has answered its own example", responses=_problems(503))
    async def readyz() -> Status:
        if starting := await host.not_ready():
            raise NotReady(f"these models are starting: {', '.join(starting)}", READY_AGAIN_S)
        return Status(status="ready")

    @router.get("/v1/models", summary="Cards of the models served")
    async def models() -> list[ModelCard]:
        return list(host.cards)

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(await host.metrics(), media_type=PROMETHEUS_TEXT)

    return router


def _tasks(host: Host) -> Iterator[APIRouter]:
    """The routes of each model, as FastAPI describes them."""
    for card in host.cards:
        own = APIRouter()
        for route in card.routes:
            own.add_api_route(
                route,
                _described(card.task),
                methods=["POST"],
                tags=[card.task],
                summary=f"{card.task.capitalize()} with {card.name}",
                operation_id=f"{card.task}{'' if route == f'/v1/{card.task}' else '_' + card.name}",
                response_model=TASKS[card.task].response_type,
                responses=_answers(card.task) | _problems(400, 413, 415, 422, 429, 500, 503, 504),
                openapi_extra={"requestBody": {"content": {"application/json": {"example": card.example}}}},
            )
        yield own


def _handler(host: Host, card: ModelCard, settings: Settings) -> Handler:
    """Reads and validates the body by our rules, answers, and counts the outcome."""
    request_type = TASKS[card.task].request_type
    answer = _answering(host, card, settings)

    async def counted(request: Request) -> Response:
        began = time.perf_counter()
        span = RequestSpan(
            request.scope["path"],
            request.headers,
            {
                "heedful.task": card.task,
                "heedful.model": card.name,
                "heedful.request_id": request.scope["state"]["request_id"],
            },
        )
        note(request.scope, task=card.task, model=card.name)
        if span.trace_id:
            note(request.scope, trace_id=span.trace_id)

        def count(status: int) -> None:
            note(request.scope, status=status)
            span.end(status)
            host.observer(card).request(status, time.perf_counter() - began)

        response: Response
        try:
            with span.current():
                body = await read_body(request, settings.limits.max_body_bytes)
                asked = _validated(request_type, parsed(body))
                response = await answer(request, asked, len(body) > LONG_BODY_BYTES)
        except ClientGoneError:
            response = Response(status_code=CLIENT_CLOSED_REQUEST)
        except asyncio.CancelledError:
            count(CLIENT_CLOSED_REQUEST)
            raise
        except Exception as error:
            _count_refusal(host.observer(card), error)
            count(status_of_any(error))
            raise
        if isinstance(response, EventStream):
            response.on_end = count
        else:
            count(response.status_code)
        return response

    return counted


def _validated(request_type: type[BaseModel], body: Any) -> BaseModel:
    """The request that a parsed body is.

    Raises:
        RequestValidationError: it is none.
        HTTPException: 422 when it has more faults than can be told; lists stop at their first one.
    """
    try:
        return request_type.model_validate(body)
    except ValidationError as error:
        if (count := error.error_count()) > MOST_FAULTS:
            detail = f"the body has {count} wrong or unknown fields, at most {MOST_FAULTS} are told one by one"
            raise HTTPException(422, detail) from None
        found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
        raise RequestValidationError(found) from None


def _answering(
    host: Host, card: ModelCard, settings: Settings
) -> Callable[[Request, BaseModel, bool], Awaitable[Response]]:
    task = TASKS[card.task]
    response_type = TypeAdapter[Any](task.response_type)

    async def answer(request: Request, body: BaseModel, is_long: bool) -> Response:
        if settings.log_text:
            note(request.scope, request=body.model_dump(mode="json", exclude_unset=True))
        until = deadline(request, settings.request_timeout_ms)
        call = Call(card, body, until, is_long=is_long, request_id=request.state.request_id)
        if isinstance(body, WritingRequest) and body.stream:
            return await _stream(request, host.stream(call), host.observer(card))
        result, timing = await unless_gone(request, host.answer(call))
        timing_ms = {"queue": timing.queue_s * 1e3, "encode": timing.encode_s * 1e3, "decode": timing.decode_s * 1e3}
        if timing.explain_s:
            timing_ms["explain"] = timing.explain_s * 1e3
        _note_phases(request, timing_ms)
        headers = {"Server-Timing": ", ".join(f"{name};dur={ms:.3f}" for name, ms in timing_ms.items())}
        if timing.cache is not None:
            headers["X-Cache"] = timing.cache
        content = response_type.dump_json(result, exclude_none=True)
        return Response(content, media_type="application/json", headers=headers)

    return answer


def _described(task: str) -> Callable[..., Awaitable[Response]]:
    """What FastAPI describes a task's routes by; `TaskRoutes` answers them."""

    async def described(body: BaseModel) -> Response:
        raise NotImplementedError

    described.__annotations__["body"] = TASKS[task].request_type
    return described


def _count_refusal(observer: Observer, error: Exception) -> None:
    if isinstance(error, ServiceError):
        observer.rejected(error.reason)


async def _stream(request: Request, events: AsyncGenerator[StreamEvent], observer: Observer) -> Response:
    """Answer with events once there is the first one; what is raised before it is an ordinary problem."""
    first = await unless_gone(request, anext(events))

    def encode(event: StreamEvent) -> bytes:
        if event.details:
            _note_phases(request, event.details.timing_ms.model_dump())
        return to_json(event)

    async def encoded() -> AsyncGenerator[bytes]:
        async with aclosing(events):
            yield encode(first)
            async for event in events:
                yield encode(event)

    async def failed(error: Exception) -> Response:
        _count_refusal(observer, error)
        return await problem_of(request, error)

    return EventStream(encoded(), failed)


def _note_phases(request: Request, timing_ms: Mapping[str, float]) -> None:
    note(request.scope, **{f"{name}_ms": round(ms, 3) for name, ms in timing_ms.items()})


def _answers(task: str) -> dict[int | str, dict[str, Any]]:
    if not issubclass(TASKS[task].request_type, WritingRequest):
        return {}
    events = {"text/event-stream": {"schema": {"$ref": "#/components/schemas/StreamEvent"}}}
    return {200: {"description": "The answer; with `stream: true` its tokens as server-sent events", "content": events}}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": "Problem (RFC 9457)", "content": content} for status in statuses}
