"""What we rely on in Ray Serve, each point on a real cluster: paths, metrics, log, ports, priorities, load, failure."""

import asyncio
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import psutil
import pytest

from tests.cluster.conftest import QUICK, REQUEST, SLOW, named, processes, samples, until
from tests.serving import Service

pytestmark = pytest.mark.cluster

RAY_LIMIT = 5  # requests that Ray lets into a replica unless told otherwise
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) heedful\.\w+ .+")


def busy_rows(http: httpx.Client) -> float:
    return sum(sum(samples(http, f"heedful_{state}_rows", model="slow").values()) for state in ("running", "waiting"))


@pytest.mark.parametrize("path", [QUICK, f"{QUICK}/quick", SLOW])
def test_every_path_reaches_the_replica_of_its_model(http: httpx.Client, path: str) -> None:
    model = path.rpartition("/")[2].replace("recommendation", "quick")
    before = samples(http, "heedful_requests_total", model=model, status="200")
    answer = http.post(path, json=REQUEST)
    assert answer.status_code == 200
    assert len(answer.json()) == 10
    after = samples(http, "heedful_requests_total", model=model, status="200")
    assert sum(after.values()) - sum(before.values()) == 1


def test_groups_are_different_replicas(http: httpx.Client) -> None:
    replicas = {model: set(samples(http, "heedful_model_info", model=model)) for model in ("quick", "slow")}
    assert {model: len(found) for model, found in replicas.items()} == {"quick": 2, "slow": 2}
    assert replicas["quick"].isdisjoint(replicas["slow"])


@pytest.mark.parametrize("path", ["/nope", "/v1/nope", f"{QUICK}/nope", f"{SLOW}/nope", "/v1", f"{QUICK}/"])
def test_an_unknown_path_is_a_problem_under_every_prefix(http: httpx.Client, path: str) -> None:
    answer = http.post(path, json=REQUEST)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert path in answer.json()["detail"]


@pytest.mark.parametrize("path", [QUICK, SLOW])
def test_a_wrong_method_is_a_problem(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_schema_names_whole_paths(http: httpx.Client) -> None:
    schema = http.get("/openapi.json").json()
    assert {QUICK, f"{QUICK}/quick", SLOW, "/v1/models", "/metrics"} <= set(schema["paths"])
    assert "servers" not in schema


def test_no_replica_s_numbers_are_lost(cluster: Service, http: httpx.Client) -> None:
    before = samples(http, "heedful_requests_total", model="quick", status="200")
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: httpx.post(f"{cluster.url}{QUICK}", json=REQUEST, timeout=60), range(40)))
    assert {answer.status_code for answer in answers} == {200}
    after = samples(http, "heedful_requests_total", model="quick", status="200")
    added = {replica: count - before.get(replica, 0) for replica, count in after.items()}
    assert sum(added.values()) == 40
    spread = {replica for replica, count in added.items() if count}
    assert spread == set(samples(http, "heedful_model_info", model="quick")), "the load balancer spreads requests"
    assert len(spread) == 2


def test_a_request_has_one_id_in_the_answer_and_in_the_log(cluster: Service, http: httpx.Client) -> None:
    answer = http.post(QUICK, json=REQUEST, headers={"X-Request-ID": "one-id-1"})
    assert answer.headers.get_list("x-request-id") == ["one-id-1"]
    made = http.post(QUICK, json={}).headers.get_list("x-request-id")
    assert len(made) == 1
    for request_id, status in (("one-id-1", 200), (made[0], 422)):
        line = f"heedful.access request_id={request_id} POST {QUICK} {status} "
        asyncio.run(until(lambda line=line: line in cluster.log.read_text()))  # type: ignore[misc]


def test_nothing_but_our_own_lines_greets_the_operator(cluster: Service) -> None:
    lines = cluster.log.read_text().splitlines()
    (ready,) = (line for line in lines if not LOG_LINE.fullmatch(line))
    assert ready.startswith(f"Heedful is ready at {cluster.url} after ")
    assert not any(" WARNING " in line or " ERROR " in line for line in lines)


def test_the_command_of_the_ready_line_answers(cluster: Service) -> None:
    ready = next(line for line in cluster.log.read_text().splitlines() if line.startswith("Heedful is ready"))
    _, url, *options = shlex.split(ready.partition("Try: ")[2])
    assert options[:2] == ["-H", "Content-Type: application/json"]
    assert httpx.post(url, json=json.loads(options[3]), timeout=60).status_code == 200


def test_replicas_do_not_yield_to_other_processes(cluster: Service) -> None:
    replicas = named("ray::ServeReplica", processes(cluster))
    assert len(replicas) == 5
    assert {each.nice() for each in replicas} == {psutil.Process(cluster.process.pid).nice()}


def test_ports_are_free_ones_and_answers_come_from_loopback_only(cluster: Service) -> None:
    family = processes(cluster)
    listening = {
        each: {end.laddr for end in each.net_connections("inet") if end.status == psutil.CONN_LISTEN} for each in family
    }
    ports = {address.port for addresses in listening.values() for address in addresses}
    assert ports.isdisjoint({8404, 9101, 8500, 9500}), "Ray's fixed ports would clash with a second service"
    port = httpx.URL(cluster.url).port
    (front,) = named("haproxy -db", family)
    assert [address.ip for address in listening[front] if address.port == port] == ["127.0.0.1"]


def test_more_requests_than_ray_s_limit_run_and_hanging_up_frees_them(cluster: Service, http: httpx.Client) -> None:
    before = samples(http, "heedful_requests_total", model="slow", status="499")
    with ExitStack() as callers:
        # On a busy machine some are answered before all are counted, so that more have to come.
        for _ in range(10):
            for _ in range(40):
                ask_and_leave(cluster, callers)
            if (inside := busy_rows(http)) >= 30:
                break
        assert inside > 2 * RAY_LIMIT
    asyncio.run(until(lambda: busy_rows(http) == 0))
    after = samples(http, "heedful_requests_total", model="slow", status="499")
    assert sum(after.values()) - sum(before.values()) > 2 * RAY_LIMIT


def ask_and_leave(service: Service, callers: ExitStack) -> None:
    """Send a request on a connection that closes with `callers`, whether the answer is there or not."""
    url, body = httpx.URL(service.url), json.dumps(REQUEST).encode()
    head = (
        f"POST {SLOW} HTTP/1.1",
        "Host: a",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    caller = callers.enter_context(socket.create_connection((url.host, url.port or 80)))
    caller.sendall("\r\n".join((*head, "", "")).encode() + body)


async def test_a_killed_replica_costs_no_answer(cluster: Service, http: httpx.Client) -> None:
    victim = named("ray::ServeReplica:slow", processes(cluster))[0]
    async with httpx.AsyncClient(base_url=cluster.url, timeout=60) as client:
        # Enough for four seconds: when HAProxy has just read its configuration anew, a look may take two.
        calls = [asyncio.create_task(client.post(SLOW, json=REQUEST)) for _ in range(30)]
        await until(lambda: busy_rows(http) >= 8)
        victim.kill()
        statuses = [(await call).status_code for call in calls]
        statuses += [(await client.post(SLOW, json=REQUEST)).status_code for _ in range(10)]
    assert statuses == [200] * 40, statuses
    await until(lambda: len(samples(http, "heedful_model_info", model="slow")) == 2)


def test_a_replica_that_stands_still_is_left_out_of_the_page_and_the_others_are_not(
    cluster: Service, http: httpx.Client
) -> None:
    standing, _ = named("ray::ServeReplica:models:", processes(cluster))
    standing.suspend()
    try:
        found = {model: len(samples(http, "heedful_model_info", model=model)) for model in ("quick", "slow")}
        ready = http.get("/readyz")
    finally:
        standing.resume()
    assert found == {"quick": 1, "slow": 2}
    assert ready.status_code == 200, ready.text


@pytest.mark.parametrize(("application", "path"), [("slow", SLOW), ("models", QUICK)])
def test_a_model_whose_application_is_gone_answers_503(
    cluster: Service, http: httpx.Client, application: str, path: str
) -> None:
    """The last tests here: first the replica with the shorter prefix answers for the slow model, then the gateway."""
    (raylet,) = named("raylet --raylet_socket_name", processes(cluster))
    address = next(word.partition("=")[2] for word in raylet.cmdline() if word.startswith("--gcs-address="))
    token = {**os.environ, "RAY_AUTH_MODE": "token"}
    command = [sys.executable, "-c", DELETE, address, application]
    subprocess.run(command, check=True, capture_output=True, timeout=120, env=token)
    asyncio.run(until(lambda: http.post(path, json=REQUEST).status_code != 200))
    answer = http.post(path, json=REQUEST)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    ready = http.get("/readyz")
    assert ready.status_code == 503
    assert path.rpartition("/")[2].replace("recommendation", "quick") in ready.json()["detail"]
    assert http.get("/v1/models").status_code == 200


DELETE = """
import sys, ray
from ray import serve
ray.init(address=sys.argv[1], log_to_driver=False)
serve.delete(sys.argv[2])
"""
