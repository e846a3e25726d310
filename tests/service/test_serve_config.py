"""`heedful config --serve`: a config that Ray's own schema takes, and the annotated example that it is made from."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from service.configuration import load_settings
from service.hosting import model_cards
from service.serve_config import serve_config
from service.settings import Autoscaling, GroupSettings, Limits, ModelSettings, Settings
from tests.tiny import write_bundle

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "deploy" / "heedful.yaml"

# In a process of its own: importing Ray reads the environment, and Ray warns of its own deprecations.
VALIDATE = """
import sys, yaml
from ray.serve.schema import ServeDeploySchema
schema = ServeDeploySchema.model_validate(yaml.safe_load(sys.stdin))
print([application.name for application in schema.applications])
"""


def test_the_annotated_example_is_what_ray_s_schema_takes() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PORT"}
    command = [sys.executable, "-m", "service", "config", "--serve", "--config", str(EXAMPLE)]
    printed = subprocess.run(command, capture_output=True, check=True, text=True, cwd=ROOT, env=environment, timeout=60)
    validate = [sys.executable, "-W", "ignore", "-c", VALIDATE]
    seen = subprocess.run(validate, input=printed.stdout, capture_output=True, check=True, text=True, timeout=120)
    assert seen.stdout.strip() == "['text', 'answers', 'items', 'gateway']"


def test_the_annotated_example_names_every_setting_and_its_true_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("PORT", raising=False)
    text = EXAMPLE.read_text(encoding="utf-8")
    for kind in (Settings, ModelSettings, Limits, Autoscaling, GroupSettings):
        missing = [name for name in kind.model_fields if not re.search(rf"\b{name}:", text)]
        assert missing == (["bundles"] if kind is Settings else [])
    settings, default = load_settings(EXAMPLE), Settings()
    for name in ("host", "port", "log_level", "threads", "slots", "limits", "request_timeout_ms", "drain_timeout_s"):
        assert getattr(settings, name) == getattr(default, name), name
    scaling = settings.of_group("answers").autoscaling
    assert scaling is not None
    assert scaling.model_dump(exclude={"max_replicas"}) == Autoscaling(max_replicas=1).model_dump(
        exclude={"max_replicas"}
    )


def test_a_builder_in_another_process_makes_the_same_of_it(tmp_path: Path) -> None:
    bundles = [write_bundle(tmp_path / name, name) for name in ("a", "b")]
    models = [
        {"bundle": str(bundles[0]), "replica": "one", "canary": {"bundle": str(bundles[1]), "percent": 5}},
        {"bundle": str(bundles[1]), "replica": "two"},
        {"bundle": str(bundles[1]), "name": "c", "replica": "three"},
    ]
    groups = {
        "two": {"autoscaling": {"min_replicas": 0, "max_replicas": 3}, "num_gpus": 0.5},
        "three": {"autoscaling": {"min_replicas": 2, "max_replicas": 3}},
    }
    settings = Settings.model_validate({"models": models, "groups": groups, "num_cpus": 0.2})
    config = yaml.safe_load(yaml.safe_dump(serve_config(settings, model_cards(settings))))
    options = {each["name"]: each["deployments"][0] for each in config["applications"]}
    assert list(options) == ["one", "one-canary", "two", "three", "gateway"]
    assert options["two"]["ray_actor_options"] == {"num_cpus": 0.2, "num_gpus": 0.5}
    assert options["two"]["autoscaling_config"]["min_replicas"] == 0
    assert options["two"]["autoscaling_config"]["initial_replicas"] == 1
    assert "initial_replicas" not in options["three"]["autoscaling_config"]  # a new version would be cut down to it
    assert {each["max_surge_percent"] for each in options.values()} == {100}
    for application in config["applications"]:
        again = Settings.model_validate(application["args"]["settings"])
        assert serve_config(again, model_cards(again)) == config
