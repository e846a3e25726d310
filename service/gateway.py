"""The HTTP contract: typed routes made from the models' cards, and the operational routes beside them."""

import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter
from starlette.responses import Response

from models.tasks import TASKS
from service.contract import ModelCard, Problem
from service.engine import Timing
from service.errors import NotReady
from service.hosting import READY_AGAIN_S, Host
from service.problems import install, status_of_any
from service.settings import Settings
from service.transport import ClientGoneError, JsonRequest, RequestIds, deadline, unless_gone

CLIENT_CLOSED_REQUEST = 499  # nginx's status for the log and the metrics; nobody reads the response
PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class Status(BaseModel):
    """Whether the service lives or is ready."""

    status: str


class Index(BaseModel):
    """Where to go from `/`."""

    service: str
    version: str
    models: str
    docs: str


def create_app(host: Host, settings: Settings, *, lifespan: Lifespan | None = None) -> FastAPI:
    """The ASGI application in front of a host's models.

    Args:
        host: answers the requests.
        settings: limits and timeouts.
        lifespan: run around the application's life, such as starting the engines.
    """
    app = FastAPI(
        title="Heedful",
        summary="Translation, summarization, question answering and recommendation by attention models.",
        version=version("heedful"),
        lifespan=lifespan,
        redirect_slashes=False,
    )
    install(app)
    app.include_router(_operations(host))
    app.include_router(_tasks(host, settings))
    app.add_middleware(RequestIds)
    return app


def _operations(host: Host) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/", summary="Where to go from here")
    async def index() -> Index:
        return Index(service="heedful", version=version("heedful"), models="/v1/models", docs="/docs")

    @router.get("/healthz", summary="Alive")
    async def healthz() -> Status:
        return Status(status="alive")

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


def _tasks(host: Host, settings: Settings) -> APIRouter:
    router = APIRouter()
    for card in host.cards:
        own = APIRouter(route_class=_route_class(host, card, settings))
        for route in card.routes:
            own.add_api_route(
                route,
                _endpoint(host, card, settings),
                methods=["POST"],
                tags=[card.task],
                summary=f"{card.task.capitalize()} with {card.name}",
                operation_id=f"{card.task}{'' if route == f'/v1/{card.task}' else '_' + card.name}",
                response_model=TASKS[card.task].response_type,
                responses=_problems(400, 413, 415, 422, 429, 500, 503, 504),
                openapi_extra={"requestBody": {"content": {"application/json": {"example": card.example}}}},
            )
        router.include_router(own)
    return router


def _route_class(host: Host, card: ModelCard, settings: Settings) -> type[APIRoute]:
    """A route that reads the body by our rules before FastAPI validates it, and counts the outcome."""

    class TaskRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def counted(request: Request) -> Response:
                began = time.perf_counter()
                status = CLIENT_CLOSED_REQUEST  # a cancelled handler's caller has gone
                try:
                    limit = settings.limits.max_body_bytes
                    response = await handle(JsonRequest(request.scope, request.receive, max_body_bytes=limit))
                    status = response.status_code
                except Exception as error:
                    status = status_of_any(error)
                    raise
                else:
                    return response
                finally:
                    host.observer(card).request(status, time.perf_counter() - began)

            return counted

    return TaskRoute


def _endpoint(host: Host, card: ModelCard, settings: Settings) -> Callable[..., Awaitable[Response]]:
    task = TASKS[card.task]
    response_type = TypeAdapter[Any](task.response_type)

    async def answer(request: Request, body: BaseModel) -> Response:
        until = deadline(request, settings.request_timeout_ms)
        try:
            result, timing = await unless_gone(request, host.answer(card, body, until))
        except ClientGoneError:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        headers = {"Server-Timing": _server_timing(timing)}
        return Response(response_type.dump_json(result), media_type="application/json", headers=headers)

    answer.__annotations__["body"] = task.request_type
    return answer


def _server_timing(timing: Timing) -> str:
    phases = {"queue": timing.queue_s, "encode": timing.encode_s, "decode": timing.decode_s}
    return ", ".join(f"{name};dur={seconds * 1e3:.3f}" for name, seconds in phases.items())


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/problem+json": {"schema": TypeAdapter(Problem).json_schema()}}
    return {status: {"description": "Problem (RFC 9457)", "content": content} for status in statuses}
