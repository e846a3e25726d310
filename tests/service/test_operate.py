"""What an operator looks at: the settings in force, and what a node's shell takes over before `ray start`."""

import os
import subprocess
from pathlib import Path

import pytest

from service.configuration import load_settings
from service.ray_environment import of_node
from tests.serving import HEEDFUL
from tests.tiny import write_bundle


def test_a_shell_takes_over_the_environment_of_a_node_as_it_is() -> None:
    """Its values have line ends, quotes, blanks and bars, of which a shell makes something else if it may."""
    expected = of_node()
    assert all(any(mark in value for value in expected.values()) for mark in '\n" |^')
    environment = {name: value for name, value in os.environ.items() if name not in expected}
    script = 'environment=$("$0" environment) && eval "$environment" && env -0'
    ran = subprocess.run(["sh", "-ec", script, HEEDFUL], capture_output=True, check=True, env=environment, timeout=60)
    found = dict(line.split("=", 1) for line in ran.stdout.decode().split("\0") if line)
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize("scale", ["replicas: 2", "autoscaling: {min_replicas: 0, max_replicas: 3}"])
def test_printed_settings_are_read_again_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: str
) -> None:
    monkeypatch.delenv("PORT", raising=False)
    one, two = (write_bundle(tmp_path / name, name) for name in ("one", "two"))
    given, again = tmp_path / "given.yaml", tmp_path / "again.yaml"
    given.write_text(
        f"""
        {scale}
        port: 8123
        drain_timeout_s: 1.5
        limits: {{max_body_bytes: 1000}}
        num_gpus: 0.25
        models:
        - {{bundle: {one}, name: "1", version: "1", canary: {{bundle: {two}, percent: 2.5}}, replica: alone}}
        - {{bundle: {two}, previous: {one}, precision: fp32}}
        groups:
          alone: {{autoscaling: {{max_replicas: 4}}, num_cpus: 0.5}}
          models: {{replicas: 1}}
        """
    )
    command = [str(HEEDFUL), "config", "--config", str(given)]
    again.write_bytes(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    assert load_settings(again) == load_settings(given)
