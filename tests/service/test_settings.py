"""Settings: which source wins, and what an operator reads when one of them is wrong."""

from pathlib import Path

import pytest

from service.settings import Settings, SettingsError, load_settings


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
    path = config(tmp_path, "models:\n- {bundle: bundles/b, name: mine, precision: fp32, replica: alone}\n- bundle: /x")
    first, second = load_settings(path).models
    assert (first.bundle, first.name, first.precision, first.replica) == (
        tmp_path / "bundles/b",
        "mine",
        "fp32",
        "alone",
    )
    assert (second.bundle, second.name, second.precision, second.replica) == (Path("/x"), None, None, "models")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port: 70000", ["setting port", "65535", "70000"]),
        ("port: [1]", ["setting port", "integer", "[1]"]),
        ("prot: 1", ["setting prot is unknown", "port"]),
        ("limits: {max_body_bytes: 0}", ["setting limits.max_body_bytes", "greater than 0", "0"]),
        ("models: [{bundle: x, precision: int3}]", ["setting models.0.precision", "'int8'", "'int3'"]),
        ("models: []", ["setting models", "at least one bundle"]),
        ("models: [{name: x}]", ["setting models.0.bundle", "required"]),
        ("- 1", ["heedful.yaml", "name: value", "[1]"]),
        ("port: {", ["heedful.yaml", "YAML"]),
        ("7: 8", ["heedful.yaml", "name: value"]),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_the_key(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(config(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_missing_file_and_a_wrong_variable_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml"):
        load_settings(tmp_path / "nowhere.yaml")
    monkeypatch.setenv("HEEDFUL_MODELS", "[{")
    with pytest.raises(SettingsError, match=r"environment: .*models.*JSON"):
        load_settings()


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
