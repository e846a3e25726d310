"""The environment that Ray finds: our choices where the operator made none, and nothing that two services share."""

import os
from pathlib import Path

import pytest

from service.ray_environment import of_node, prepare
from service.transport import MAX_TIMEOUT_MS


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Only what the test sets; `prepare` changes this copy."""
    found: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", found)
    return found


def of_one_service(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    environment.clear()
    prepare(folder)
    return dict(environment)


def test_two_services_share_neither_ports_nor_files(tmp_path: Path, environment: dict[str, str]) -> None:
    one, two = (of_one_service(tmp_path / name, environment) for name in ("one", "two"))
    own = [name for name, value in one.items() if name.endswith("_PORT") or value.startswith(str(tmp_path))]
    assert len(own) == 9
    assert all(one[name] != two[name] for name in own if not name.endswith("_PORT"))
    assert len({one[name] for name in own}) == len(own)


def test_what_the_operator_has_set_stays(tmp_path: Path, environment: dict[str, str]) -> None:
    environment["RAY_AUTH_MODE"] = "disabled"
    environment["RAY_SERVE_HAPROXY_STATS_PORT"] = "8404"
    prepare(tmp_path)
    assert environment["RAY_AUTH_MODE"] == "disabled"
    assert environment["RAY_SERVE_HAPROXY_STATS_PORT"] == "8404"


def test_without_haproxy_replicas_do_not_listen_themselves(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    prepare(tmp_path)
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    assert environment["RAY_SERVE_ENABLE_DIRECT_INGRESS"] == "0"
    assert not any(value.startswith(str(tmp_path)) for value in environment.values())


def test_a_haproxy_that_another_takes_over_from_lives_as_long_as_any_request(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    prepare(tmp_path)
    for found in (environment, of_node()):
        assert int(found["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"]) > MAX_TIMEOUT_MS / 1e3
