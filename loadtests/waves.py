"""Scaling by backlog beside Ray Serve's own policy and beside none, all real, under the same wave of Locust users.

    python -m loadtests.waves [--quick] [--folder runs/peers] [--docs docs]

Each policy in turn starts a `heedful serve` on Ray with a translator of opus-mt's size in int8, one thread for each
replica, two of them at most. The first one also measures what one replica answers; the wave is more than that. With
`--docs` the table goes into docs/operations.md and the picture beside it. Takes 9 minutes; the machine should do
nothing else meanwhile.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from loadtests.bars import hardware, markdown
from loadtests.client import for_seconds, post
from loadtests.measured_wave import COLUMNS, Seen, Wave, draw
from loadtests.peers.material import prepare
from loadtests.peers.traffic import ROUTE, served
from loadtests.peers.traffic import draw as draw_texts
from loadtests.results import put_between
from tests.serving import Service

CALM_SHARE, HIGH_SHARE = 0.4, 1.3
"""Of what one replica answers at most; two on two cores answer 1.6 times as much (`loadtests.overload second`)."""
CALM_S, HIGH_S, AFTER_S = 60.0, 40.0, 60.0
"""Before the wave long enough for Ray Serve's policy, which waits for 30 s, to have what it wants for the calm."""
DOWN_AFTER_S = 15.0
"""The default is two minutes, longer than the run."""
WAITING_ROWS = 160
"""About 5 s of work of one replica; the rest is refused."""
SATURATING, SATURATED_S, WARM_SHARE = 64, 8.0, 0.25
"""Callers, twice as many as there are slots; how long they ask; the share of it that does not count, before."""
TEXTS = 640
QUICK_SHARE = 0.25
STOP_TIMEOUT_S = 30
"""For requests that are under way when their user leaves."""

USERS = Path(__file__).with_name("wave_users.py")

POLICIES: Mapping[str, Mapping[str, Any]] = {
    "one replica": {"replicas": 1},
    "by backlog": {"replicas": None, "autoscaling": {"max_replicas": 2, "down_after_s": DOWN_AFTER_S}},
    "Ray Serve, its defaults": {"replicas": None, "autoscaling": {"max_replicas": 2, "policy": "ongoing_requests"}},
}
"""By name, what `heedful serve` is told; the first one never scales, so that it can be measured first."""

PICTURE, PAGE = "waves.svg", "operations.md"
BEGIN, END = "<!-- waves -->", "<!-- /waves -->"


def run(folder: Path, share: float) -> Mapping[str, Seen]:
    """Every policy under the same wave.

    Args:
        folder: for the model, the logs and what became of each request.
        share: of the usual length of everything.
    """
    material = prepare(folder, ["int8"])
    bodies = [text.body() for text in draw_texts(material.checkpoint / "tokenizer.json", TEXTS, seed=0)]
    asked = folder / "bodies.json"
    asked.write_text(json.dumps(bodies), encoding="utf-8")
    limits = {"max_waiting_rows": WAITING_ROWS}
    wave: Wave | None = None
    found: dict[str, Seen] = {}
    for name, scale in POLICIES.items():
        own = folder / name.replace(",", "").replace(" ", "-").lower()
        own.mkdir(exist_ok=True)
        with served(own, material.bundle("int8"), "ray", limits=limits, **scale) as service:
            wave = wave or _wave(_capacity_per_s(service, bodies, share), share)
            told = own / "requests.csv"
            found[name] = Seen.read(wave, told, _drive(service, wave, asked, told))
        print(" | ".join((name, *found[name].cells())), file=sys.stderr, flush=True)
    return found


def _capacity_per_s(service: Service, bodies: list[dict[str, Any]], share: float) -> float:
    url = service.url + ROUTE
    requests = [post(url, body) for body in bodies]
    for_seconds(url, requests, callers=SATURATING, seconds=WARM_SHARE * share * SATURATED_S)
    return for_seconds(url, requests, callers=SATURATING, seconds=share * SATURATED_S).per_s


def _wave(per_s: float, share: float) -> Wave:
    return Wave(CALM_SHARE * per_s, HIGH_SHARE * per_s, share * CALM_S, share * HIGH_S, share * AFTER_S)


def _drive(service: Service, wave: Wave, bodies: Path, told: Path) -> list[tuple[float, int]]:
    """Let the users come, and look once a second how many replicas are ready, by the clock.

    Raises:
        RuntimeError: Locust ends before the wave does.
    """
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary", "-f", str(USERS)]
    options = ["--host", service.url, "--wave", json.dumps(asdict(wave)), "--bodies", str(bodies), "--told", str(told)]
    log = told.with_suffix(".log")
    began_s, ready = time.monotonic(), list[tuple[float, int]]()
    with log.open("wb") as out, httpx.Client(base_url=service.url, timeout=5) as http:
        users = subprocess.Popen(
            [*command, *options, "--stop-timeout", str(STOP_TIMEOUT_S)], stdout=out, stderr=subprocess.STDOUT
        )
        try:
            while users.poll() is None:
                with suppress(httpx.TransportError):
                    ready.append((time.time(), _ready(http)))
                time.sleep(1.0 - time.time() % 1.0)
        finally:
            users.kill()
            users.wait()
    if time.monotonic() - began_s < wave.until_s:
        raise RuntimeError(f"Locust ended early, see {log}")
    return ready


def _ready(http: httpx.Client) -> int:
    lines = http.get("/metrics").text.splitlines()
    return round(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("heedful_ready{")))


def table(found: Mapping[str, Seen], *, is_quick: bool) -> str:
    """As Markdown, with the machine and the wave above it."""
    wave = next(iter(found.values())).wave
    told = (
        f"{hardware()}. {wave.calm_per_s:.1f} requests/s, {wave.high_per_s:.1f} for {wave.high_s:.0f} s in the wave."
        f"{' Shortened: a trial, not a measurement.' if is_quick else ''}"
    )
    return f"{told}\n\n{markdown(COLUMNS, [(name, *each.cells()) for name, each in found.items()])}"


def main() -> None:
    """Measure, print the table, and write it into the documentation where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short wave, to see that all works")
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"), help="for the model and the logs")
    parser.add_argument("--docs", type=Path, help="write table and picture there")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no server is left behind
    found = run(options.folder, QUICK_SHARE if options.quick else 1.0)
    shown = table(found, is_quick=options.quick)
    print(shown)
    draw(found, options.folder / PICTURE)
    if options.docs:
        draw(found, options.docs / PICTURE)
        alt = "Measured: replicas, p95 and refusals over time under three policies"
        put_between(options.docs / PAGE, BEGIN, END, f"{shown}\n\n![{alt}]({PICTURE})")


if __name__ == "__main__":
    main()
