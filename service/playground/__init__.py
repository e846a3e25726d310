"""The pages for people: the playground at `/` and the API at `/docs`, without a line from elsewhere."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

PAGES = Path(__file__).parent / "pages"
MEDIA_TYPES = MappingProxyType(
    {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
)
HEADERS = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",  # asked for again each time, and mostly answered by 304
        "Vary": "Accept",
    }
)


class Index(BaseModel):
    """Where to go from `/`."""

    service: str
    version: str
    models: str
    docs: str


def pages() -> APIRouter:
    """`/`, which is a page to a browser and JSON to a program, `/docs`, and what the two load."""
    files = {path.name: path for path in sorted(PAGES.iterdir()) if path.suffix in MEDIA_TYPES}
    router = APIRouter(tags=["operations"])

    @router.get("/", summary="The playground to a browser, where to go from here to a program", response_model=Index)
    async def index(request: Request) -> Response | Index:
        if "text/html" in request.headers.get("accept", ""):
            return _file(files["index.html"], request)
        return Index(service="heedful", version=version("heedful"), models="/v1/models", docs="/docs")

    @router.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return _file(files["docs.html"], request)

    @router.get("/playground/{name}", include_in_schema=False)
    async def asset(name: str, request: Request) -> Response:
        if name not in files:
            raise HTTPException(404)
        return _file(files[name], request)

    return router


def _file(path: Path, request: Request) -> Response:
    content = path.read_bytes()  # a few kilobytes that the operating system has at hand
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {**HEADERS, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=MEDIA_TYPES[path.suffix], headers=headers)
