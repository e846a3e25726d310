"""What README says is not answered by us: what is not HTTP, too long headers, and a timeout that Ray reads."""

import http.client
import socket
import ssl
from urllib.parse import urlsplit

import httpx
import pytest

from tests.contract.test_answers import ABSTRACT
from tests.serving import Service

MOST_HEADER_BYTES = 129_992 - 3 * 4  # as docs/operations.md says, for the three headers of `alive`
LIVES = '{"status":"alive"}'


@pytest.fixture
def is_ray(request: pytest.FixtureRequest) -> bool:
    return bool(request.node.callspec.params["service"] == "ray")


def answer(service: Service, sent: bytes) -> tuple[int, str, str]:
    """Status, media type and body that these bytes bring."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(sent)
        response = http.client.HTTPResponse(connection)
        response.begin()
        media_type = response.headers.get_content_type()
        return response.status, media_type, response.read().decode()


def client_hello() -> bytes:
    """What a caller sends who says https:// by mistake."""
    sent = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    return sent.read()


@pytest.mark.parametrize("sent", [client_hello(), b"GOOD MORNING\r\n\r\n", b"\0\r\n\r\n"], ids=["tls", "words", "zero"])
def test_what_is_not_http_gets_a_400_of_haproxy_or_uvicorn(service: Service, is_ray: bool, sent: bytes) -> None:
    status, media_type, body = answer(service, sent)
    assert (status, media_type) == (400, "text/html" if is_ray else "text/plain")
    assert ("<h1>400 Bad request</h1>" if is_ray else "Invalid HTTP request received.") in body


def alive(size: int) -> bytes:
    """A request whose line and headers have so many bytes."""
    begin, end = b"GET /healthz HTTP/1.1\r\nHost: heedful\r\nConnection: close\r\nX-Filler: ", b"\r\n\r\n"
    return begin + b"x" * (size - len(begin) - len(end)) + end


def test_headers_may_have_what_haproxy_holds_and_more_where_there_is_none(service: Service, is_ray: bool) -> None:
    assert answer(service, alive(MOST_HEADER_BYTES)) == (200, "application/json", LIVES)
    status, media_type, body = answer(service, alive(MOST_HEADER_BYTES + 1))
    if is_ray:
        assert (status, media_type) == (400, "text/html")
        assert "<h1>400 Bad request</h1>" in body
    else:
        assert (status, media_type, body) == (200, "application/json", LIVES)


def test_a_timeout_that_ray_reads_is_a_plain_408_of_ray(http: httpx.Client, is_ray: bool) -> None:
    headers = {"x-request-timeout-seconds": "0.001"}
    answered = http.post("/v1/summarization", json={"inputs": ABSTRACT}, headers=headers)
    if is_ray:
        assert (answered.status_code, answered.headers["content-type"]) == (408, "text/plain; charset=utf-8")
        assert "timed out" in answered.text
    else:
        assert answered.status_code == 200
