"""Whoever hangs up frees the service at once, however far its answer is, on both hosts."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.serving import LASTING, Service, ended, outcome, rows_inside, until

TRANSLATION = "/v1/translation"


@contextmanager
def calling(service: Service, body: bytes, *, announced: int) -> Iterator[socket.socket]:
    """A connection on which a request was sent, with the beginning of its body at least; closed at the end."""
    lines = (
        f"POST {TRANSLATION} HTTP/1.1",
        "Host: a",
        "Content-Type: application/json",
        f"Content-Length: {announced}",
    )
    address = httpx.URL(service.url)
    with socket.create_connection((address.host, address.port or 80), timeout=60) as caller:
        caller.sendall("\r\n".join((*lines, "", "")).encode() + body)
        yield caller


def test_a_caller_that_hangs_up_frees_its_rows(service: Service, http: httpx.Client) -> None:
    before, body = ended(http, "translation"), json.dumps(LASTING).encode()
    with calling(service, body, announced=len(body)):
        until(lambda: rows_inside(http, "translation") > 0)
    assert outcome(http, "translation", before) == {"499": 1}


def test_a_reader_that_hangs_up_frees_its_rows(service: Service, http: httpx.Client) -> None:
    before, body = ended(http, "translation"), json.dumps(LASTING | {"stream": True}).encode()
    with calling(service, body, announced=len(body)) as reader:
        assert b"200 OK" in reader.recv(4096)
        assert rows_inside(http, "translation") > 0
    assert outcome(http, "translation", before) == {"499": 1}


def test_a_caller_that_hangs_up_midway_through_its_body_is_counted_as_one(service: Service, http: httpx.Client) -> None:
    """What comes of it is more than HAProxy keeps to itself until the rest is there."""
    before = ended(http, "translation")
    with calling(service, b"{" + b" " * 200_000, announced=300_000):
        pass
    assert outcome(http, "translation", before) == {"499": 1}
