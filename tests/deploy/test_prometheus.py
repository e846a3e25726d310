"""What operators watch: a real Prometheus scrapes two replicas, and every query of the dashboards finds data there."""

import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from service.configuration import load_settings
from service.metrics import render
from service.settings import Autoscaling, Settings
from tests.serving import Service, free_port, start, stop

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
ONLY_WITH_A_GPU = {"heedful_gpu_memory_bytes", "heedful_gpu_utilization_ratio"}
BODIES: Mapping[str, object] = {
    "translation": {"inputs": "Good morning. Where is the station?"},
    "summarization": {"inputs": "We propose a graph network. It learns from few labels and is better than others."},
    "question-answering": {"inputs": {"question": "Where was she born?", "context": "She was born in Warsaw."}},
    "recommendation": {"inputs": {"history": ["22423"]}},
}
Ask = Callable[[str], Sequence[Mapping[str, Any]]]


def found(command: str) -> str:
    path = shutil.which(command)
    if path is None:
        pytest.skip(f"{command} is not installed (Debian: apt-get install prometheus)")
    return path


def queries() -> list[tuple[str, str]]:
    """Title and query of every panel, and of the variables that choose its models."""
    dashboard = json.loads((DEPLOY / "grafana/dashboards/heedful.json").read_text())
    choices = [
        (variable["name"], re.sub(r"label_values\((.*), \w+\)", r"\1", variable["query"]["query"]))
        for variable in dashboard["templating"]["list"]
    ]
    return choices + [
        (panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", [])
    ]


def test_each_alert_is_raised_when_it_should_be() -> None:
    run = [found("promtool"), "test", "rules", str(Path(__file__).with_name("rules_test.yml"))]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rules = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())["groups"][0]["rules"]
    tested = Path(__file__).with_name("rules_test.yml").read_text()
    assert [rule["alert"] for rule in rules if f"alertname: {rule['alert']}\n" not in tested] == []


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    found("prometheus")
    started = start("ray", tmp_path_factory.mktemp("observed") / "log", HEEDFUL_REPLICAS="2")
    yield started
    stop(started)


@pytest.fixture(scope="module")
def ask(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Asks a Prometheus that runs by our own configuration, but for the address and a shorter interval."""
    folder = tmp_path_factory.mktemp("prometheus")
    settings = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    settings["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    (target,) = settings["scrape_configs"]
    assert target["static_configs"] == [{"targets": [f"heedful:{load_settings().port}"]}]
    target["static_configs"] = [{"targets": [service.url.removeprefix("http://")]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    shutil.copy(DEPLOY / "prometheus/rules.yml", folder)
    address = f"127.0.0.1:{free_port()}"
    run = [found("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*run, f"--web.listen-address={address}"], stdout=log, stderr=subprocess.STDOUT)

    def asked(query: str) -> Sequence[Mapping[str, Any]]:
        answer = httpx.get(f"http://{address}/api/v1/query", params={"query": query}, timeout=30)
        assert answer.status_code == 200, (query, answer.text)
        result: Sequence[Mapping[str, Any]] = answer.json()["data"]["result"]
        return result

    try:
        until(lambda: httpx.get(f"http://{address}/-/ready").status_code == 200)
        until(lambda: bool(asked("heedful_ready")))
        yield asked
    finally:
        server.terminate()
        server.wait(30)


def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    give_up = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < give_up, f"not within {timeout_s} s"
        time.sleep(0.2)


@pytest.mark.cluster
def test_what_prometheus_counts_is_what_was_sent_and_every_panel_has_data(service: Service, ask: Ask) -> None:
    def requests() -> dict[tuple[str, str, str], float]:
        series = [(each["metric"], float(each["value"][1])) for each in ask("heedful_requests_total")]
        return {(of["task"], of["status"], of["replica"]): value for of, value in series}

    before = requests()
    sent = [(task, body, 200) for task, body in BODIES.items()] * 10 + [("translation", {"inputs": 1}, 422)] * 3
    with ThreadPoolExecutor(4) as callers, httpx.Client(base_url=service.url, timeout=60) as client:
        statuses = list(callers.map(lambda each: client.post(f"/v1/{each[0]}", json=each[1]).status_code, sent))
    assert statuses == [status for *_, status in sent]

    def added() -> dict[tuple[str, str, str], float]:
        return {key: value - before.get(key, 0) for key, value in requests().items() if value > before.get(key, 0)}

    until(lambda: sum(added().values()) >= len(sent))
    for task in BODIES:
        assert sum(value for key, value in added().items() if key[:2] == (task, "200")) == 10
    assert sum(value for key, value in added().items() if key[:2] == ("translation", "422")) == 3
    assert sum(added().values()) == len(sent)
    assert len({replica for *_, replica in added()}) == 2, "both replicas answered and were counted"

    empty = []
    for title, template in queries():
        if any(name in template for name in ONLY_WITH_A_GPU):
            continue
        query = template.replace("$task", ".*").replace("$model", ".*").replace("$__rate_interval", "1m")
        assert "$" not in query
        if not any(math.isfinite(float(each["value"][1])) for each in ask(query)):
            empty.append((title, query))
    assert empty == []


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # Ray of its own settings
@pytest.mark.parametrize(("least", "shown"), [(0, False), (1, True)])
def test_a_model_that_may_have_no_replica_raises_no_alert_while_it_has_none(least: int, shown: bool) -> None:
    from service.cluster.front import ClusterHost

    host = ClusterHost(Settings(autoscaling=Autoscaling(min_replicas=least, max_replicas=2)))
    page = render(host._registry).decode()
    assert ('heedful_ready{model="en-fr",task="translation"} 0.0' in page) is shown
