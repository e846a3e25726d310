"""The embedded host, as its operator sees it: how long a request may take, and what becomes of those under way."""

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.serving import rows_inside, start, stop, until
from tests.tiny import write_bundle

BODY = {"inputs": {"history": ["i1"]}}
QUICK, SLOW = "/v1/recommendation", "/v1/recommendation/slow"


def test_after_sigterm_what_fits_the_drain_timeout_is_answered_and_what_is_new_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundles" / "quick", "quick")
    write_bundle(tmp_path / "bundles" / "slow", "slow", products=150)
    service = start("embedded", tmp_path / "log", HEEDFUL_BUNDLES=str(tmp_path / "bundles"))
    try:
        with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=service.url, timeout=60) as http:
            asked = pool.submit(httpx.post, f"{service.url}{SLOW}", json=BODY, timeout=60)
            until(lambda: rows_inside(http, "recommendation") > 0)
            service.process.send_signal(signal.SIGTERM)
            until(lambda: http.post(QUICK, json=BODY).status_code != 200)
            late = http.post(QUICK, json=BODY)
            answer = asked.result()
        assert service.process.wait(60) == 0
    finally:
        stop(service)
    assert answer.status_code == 200
    assert late.status_code == 503
    assert late.headers["content-type"] == "application/problem+json"
    assert int(late.headers["retry-after"]) >= 1
    assert "shutting down" in late.json()["detail"]


def test_a_request_that_sets_no_deadline_has_the_operator_s(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundles" / "slow", "slow", products=20)
    service = start(
        "embedded", tmp_path / "log", HEEDFUL_BUNDLES=str(tmp_path / "bundles"), HEEDFUL_REQUEST_TIMEOUT_MS="20"
    )
    late = httpx.post(f"{service.url}{SLOW}", json=BODY, timeout=60)
    patient = httpx.post(f"{service.url}{SLOW}", json=BODY, headers={"X-Request-Timeout-Ms": "60000"}, timeout=60)
    stop(service)
    assert late.status_code == 504
    assert "deadline" in late.json()["detail"]
    assert patient.status_code == 200
