"""A hub on this machine: the routes that the client's `snapshot_download` asks, over files in memory."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves repositories, each a directory, at one commit that is also their branch main.

    `asked` are the paths of all requests, `tokens` the Authorization headers.
    """

    def __init__(self, repositories: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def hub(repositories: Mapping[str, Path]) -> Iterator[Hub]:
    with Hub(repositories) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        self.server.tokens.add(self.headers["Authorization"])
        status, headers, body = self._found(path)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _found(self, path: str) -> tuple[int, dict[str, str], bytes]:
        for name, folder in self.server.repositories.items():
            if path.startswith(f"/api/models/{name}/revision/"):
                if path.rpartition("/")[2] not in {"main", COMMIT}:
                    return 404, {"X-Error-Code": "RevisionNotFound"}, b""
                return _json({"id": name, "sha": COMMIT, "siblings": []})
            if path == f"/api/models/{name}/tree/{COMMIT}":
                files = [file for file in sorted(folder.iterdir()) if file.is_file()]
                return _json([{"type": "file", "path": file.name, **_described(file)} for file in files])
            if path.startswith(f"/{name}/resolve/{COMMIT}/"):
                content = (folder / path.rpartition("/")[2]).read_bytes()
                etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
                return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, content
        return 404, {"X-Error-Code": "RepoNotFound"}, b""


def _described(file: Path) -> dict[str, object]:
    content = file.read_bytes()
    return {"size": len(content), "oid": hashlib.sha1(content, usedforsecurity=False).hexdigest()}


def _json(value: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()
