"""Settings: which source wins, and what an operator reads when one of them is wrong."""

from pathlib import Path

import pytest

from service.configuration import load_settings
from service.errors import SettingsError
from service.settings import Limits, Settings
from tests.tiny import write_bundle


@pytest.fixture(autouse=True)
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment without settings, except for a folder with two bundles and a folder that is none."""
    monkeypatch.delenv("PORT", raising=False)
    folder = tmp_path / "bundles"
    for name in ("b", "a", "none"):
        (folder / name).mkdir(parents=True)
    for name in ("b", "a"):
        (folder / name / "bundle.json").touch()
    monkeypatch.setenv("HEEDFUL_BUNDLES", str(folder))
    return folder


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "heedful.yaml"
    path.write_text(text)
    return path


def test_every_bundle_of_the_folder_is_served_in_one_replica_unless_models_are_named(bundles: Path) -> None:
    served = load_settings().models
    assert [model.bundle for model in served] == [bundles / "a", bundles / "b"]
    assert {model.replica for model in served} == {"models"}


def test_flags_win_over_the_environment_and_the_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(tmp_path, "port: 8001\nhost: 0.0.0.0\nlimits: {max_body_bytes: 10, max_waiting_rows: 11}")
    assert load_settings(path).port == 8001
    monkeypatch.setenv("PORT", "8002")
    assert load_settings(path).port == 8002
    monkeypatch.setenv("HEEDFUL_PORT", "8003")
    assert load_settings(path).port == 8003
    assert load_settings(path, port=8004).port == 8004
    assert load_settings(path, port=None, host=None).host == "0.0.0.0"
    monkeypatch.setenv("HEEDFUL_LIMITS__MAX_BODY_BYTES", "12")
    limits = load_settings(path).limits
    assert (limits.max_body_bytes, limits.max_waiting_rows) == (12, 11)


def test_models_are_read_from_the_file_with_relative_paths_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "own" / "b", "b")
    write_bundle(tmp_path / "own" / "x", "x")
    path = config(
        tmp_path,
        f"models:\n- {{bundle: own/b, name: mine, precision: fp32, replica: alone}}\n- bundle: {tmp_path}/own/x",
    )
    first, second = load_settings(path).models
    assert (first.bundle, first.name, first.precision, first.replica) == (
        tmp_path / "own/b",
        "mine",
        "fp32",
        "alone",
    )
    assert (second.bundle, second.name, second.precision, second.replica) == (tmp_path / "own/x", None, None, "models")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("host: a\nport: 70000", 2, ["setting port", "65535", "70000"]),
        ("port: [1]", 1, ["setting port", "integer", "[1]"]),
        ("\n\nprot: 1", 3, ["setting prot is unknown", "port"]),
        ("limits:\n  max_body_bytes: 0", 2, ["setting limits.max_body_bytes", "greater than 0", "0"]),
        ("limits:\n  # no\n  rows: 1", 3, ["limits.rows is unknown; the settings there are max_body_bytes, "]),
        ("models: [{bundle: x, precision: int3}]", 1, ["setting models.0.precision", "'int8'", "'int3'"]),
        (
            "models:\n- bundle: x\n- bundle: y\n  canary:\n    bundle: z\n    percent: 101",
            6,
            ["models.1.canary.percent", "101"],
        ),
        ("models: []", 1, ["setting models", "at least one bundle"]),
        ("port: 1\nmodels:\n\n- name: x", 4, ["setting models.0.bundle", "required"]),
        ("models:\n- bundle: B1\n- bundle: nowhere", 3, ["models.1.bundle", "nowhere", "bundle.json is missing"]),
        ("models:\n- bundle: B1\n- bundle: B1", 3, ["second recommendation model named 'one'", "in line 2"]),
        (
            "models:\n- bundle: B1\n  canary:\n    percent: 5\n    bundle: B2",
            5,
            ["the canary is a model for translation, the model one for recommendation"],
        ),
        ("models:\n- bundle: B1\n  version: '7'", 3, ["models.0.version is '7'", "is version '1'"]),
        ("models:\n- bundle: B1\ngroups:\n  other: {replicas: 1}", 3, ["no model has the replica 'other'", "models"]),
        ("autoscaling:\n  max_replicas: 1\n  min_replicas: 2", 1, ["min_replicas 2 is more than max_replicas 1"]),
        ("groups:\n  models:\n    replicas: 2\n    autoscaling: {max_replicas: 2}", 2, ["exclude each other"]),
        ("port: 1\nhost: x\nport: 2", 3, ["port is set a second time", "line 1"]),
        ("host: x\nport: {", 2, ["YAML"]),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_line_and_key(
    tmp_path: Path, text: str, line: int, words: list[str]
) -> None:
    text = text.replace("B1", str(write_bundle(tmp_path / "one", "one")))
    text = text.replace("B2", str(write_bundle(tmp_path / "two", "two", task="translation")))
    with pytest.raises(SettingsError) as caught:
        load_settings(config(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{tmp_path}/heedful.yaml:{line}"), message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("text", ["- 1", "7: 8"])
def test_a_file_that_holds_no_settings_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"heedful\.yaml must hold settings as `name: value`, got "):
        load_settings(config(tmp_path, text))


def test_what_the_environment_says_wrong_is_not_blamed_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEEDFUL_LIMITS__MAX_BODY_BYTES", "0")
    with pytest.raises(SettingsError) as caught:
        load_settings(config(tmp_path, "limits: {max_body_bytes: 10}"))
    assert str(caught.value).startswith("setting limits.max_body_bytes: ")


def test_a_group_has_its_own_and_otherwise_everybody_s_settings(bundles: Path) -> None:
    settings = Settings.model_validate(
        {
            "bundles": bundles,
            "autoscaling": {"max_replicas": 3},
            "num_gpus": 0.5,
            "groups": {"models": {"replicas": 2, "limits": {"max_waiting_rows": 1}}},
        }
    )
    own, other = settings.of_group("models"), settings.of_group("other")
    assert (own.replicas, own.autoscaling, own.num_gpus, own.limits.max_waiting_rows) == (2, None, 0.5, 1)
    assert other.autoscaling is not None
    assert (other.autoscaling.max_replicas, other.limits.max_waiting_rows) == (3, 4096)


def test_a_missing_file_and_a_wrong_variable_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml"):
        load_settings(tmp_path / "nowhere.yaml")
    monkeypatch.setenv("HEEDFUL_MODELS", "[{")
    with pytest.raises(SettingsError, match=r"environment: .*models.*JSON"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("HEEDFUL_REPLICA", "HEEDFUL_REPLICAS"),
        ("heedful_prot", "HEEDFUL_PORT"),
        ("HEEDFUL_LIMITS_MAX_BODY_BYTES", "HEEDFUL_LIMITS__MAX_BODY_BYTES"),
        ("HEEDFUL_SLOTS__0", "HEEDFUL_SLOTS"),
        ("HEEDFUL_HTTP_PORT", "HEEDFUL_PORT"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, name: str, near: str
) -> None:
    monkeypatch.setenv(name, "3")
    with pytest.raises(SettingsError, match=rf"variable {name} is no setting; did you mean {near}\?$"):
        load_settings()


def test_a_variable_that_is_like_no_setting_is_refused_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEEDFUL_XYZZY", "3")
    with pytest.raises(SettingsError, match="variable HEEDFUL_XYZZY is no setting; the settings are host, port, "):
        load_settings()


def test_what_kubernetes_tells_of_services_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of one that is called heedful, whose HEEDFUL_PORT would be ours."""
    for service in ("HEEDFUL", "HEEDFUL_METRICS", "HEEDFUL_PORT_SVC"):
        for name, value in {
            "SERVICE_HOST": "10.0.0.1",
            "SERVICE_PORT": "80",
            "SERVICE_PORT_HTTP": "80",
            "PORT": "tcp://10.0.0.1:80",
            "PORT_80_TCP": "tcp://10.0.0.1:80",
            "PORT_80_TCP_PROTO": "tcp",
            "PORT_80_TCP_PORT": "80",
            "PORT_80_TCP_ADDR": "10.0.0.1",
        }.items():
            monkeypatch.setenv(f"{service}_{name}", value)
    assert load_settings().port == 8000
    monkeypatch.setenv("PORT", "8002")
    assert load_settings().port == 8002


def test_every_setting_can_be_given_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, field in Settings.model_fields.items():
        if name not in {"bundles", "models"} and (value := field.get_default(call_default_factory=True)) is not None:
            text = value.model_dump_json() if isinstance(value, Limits) else str(value)
            monkeypatch.setenv(f"HEEDFUL_{name.upper()}", text)
    monkeypatch.setenv("HEEDFUL_GROUPS__MODELS__LIMITS__MAX_WAITING_ROWS", "7")
    monkeypatch.setenv("HEEDFUL_AUTOSCALING", '{"max_replicas": 3}')
    monkeypatch.delenv("HEEDFUL_REPLICAS")
    assert load_settings().of_group("models").limits.max_waiting_rows == 7


def test_a_folder_without_bundles_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEEDFUL_BUNDLES", str(tmp_path / "empty"))
    with pytest.raises(SettingsError, match=r"setting models: .*bundle\.json"):
        load_settings()


def test_settings_are_frozen_and_see_no_environment_by_themselves(
    monkeypatch: pytest.MonkeyPatch, bundles: Path
) -> None:
    monkeypatch.setenv("HEEDFUL_PORT", "8009")
    settings = Settings(bundles=bundles)
    assert settings.port == 8000
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]
