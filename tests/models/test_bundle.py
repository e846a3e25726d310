"""What a folder must pass before anything in it is used: it may have come from somebody else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.bundle import MANIFEST, open_bundle
from models.errors import BundleError
from tests.tiny import file, write_bundle


def within(folder: Path) -> str:
    """A link that stays in the folder."""
    (folder / "link.json").symlink_to(folder / "catalogue.json")
    return "link.json"


def absolute(folder: Path) -> str:
    """Refused although it ends in the folder: only there does it."""
    return str(folder / "catalogue.json")


def upwards(folder: Path) -> str:
    (folder / "catalogue.json").rename(folder.parent / "catalogue.json")
    return "../catalogue.json"


def upwards_from_below(folder: Path) -> str:
    (folder / "below").mkdir()
    return f"below/../{upwards(folder)}"


def link(folder: Path) -> str:
    (folder / "link.json").symlink_to(upwards(folder))
    return "link.json"


def below_a_link(folder: Path) -> str:
    upwards(folder)
    (folder / "link").symlink_to(folder.parent)
    return "link/catalogue.json"


def naming(folder: Path, placed: Callable[[Path], str]) -> str:
    """Let the manifest name the catalogue, which is what it should be, by another path."""
    path = placed(folder)
    fields = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(fields | {"catalogue": file(folder, path)}))
    return path


@pytest.mark.parametrize("placed", [absolute, upwards, upwards_from_below, link, below_a_link])
def test_a_path_that_leads_out_of_the_folder_is_refused_although_the_file_is_what_it_should_be(
    tmp_path: Path, placed: Callable[[Path], str]
) -> None:
    folder = write_bundle(tmp_path / "bundle", "whole")
    path = naming(folder, placed)
    with pytest.raises(BundleError) as refused:
        open_bundle(folder)
    assert str(refused.value) == f"{folder}: {path!r} leads out of the bundle's folder"


def test_a_link_within_the_folder_is_followed_also_where_the_folder_is_one_itself(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", "whole")
    naming(folder, within)
    (tmp_path / "named").symlink_to(folder)
    assert open_bundle(tmp_path / "named").folder == folder


def without_catalogue(folder: Path) -> None:
    (folder / "catalogue.json").unlink()


def with_a_longer_catalogue(folder: Path) -> None:
    with (folder / "catalogue.json").open("a") as catalogue:
        catalogue.write("\n")


def with_another_letter(folder: Path) -> None:
    text = (folder / "catalogue.json").read_text()
    (folder / "catalogue.json").write_text(text.replace("Thing", "thong"))


def no_json(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"schema_version": 1,')


def a_list(folder: Path) -> None:
    (folder / MANIFEST).write_text("[1]")


def nothing(folder: Path) -> None:
    (folder / MANIFEST).unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_catalogue, "/bundle: catalogue.json is missing"),
        (with_a_longer_catalogue, "/bundle/catalogue.json: 1881 bytes, the manifest says 1880"),
        (with_another_letter, "/bundle/catalogue.json: sha256 "),
        (no_json, "/bundle/bundle.json: cannot be read as JSON: "),
        (a_list, "/bundle/bundle.json: field (root): "),
        (nothing, "/bundle: not a bundle, bundle.json is missing"),
    ],
)
def test_a_damaged_bundle_is_refused_by_the_file_that_is_wrong(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    folder = write_bundle(tmp_path / "bundle", "damaged")
    damage(folder)
    with pytest.raises(BundleError) as refused:
        open_bundle(folder)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"schema_version": 2, "new_field": 1}, "schema_version is 2, this release reads up to 1: upgrade heedful"),
        ({"parameters": 0}, "field parameters: Input should be greater than 0"),
        ({"limits": {"max_tokens": "many"}}, "field limits.max_tokens: Input should be a valid integer"),
        ({"colour": "red"}, "field colour: Extra inputs are not permitted"),
        ({"name": "a/b"}, "field name: String should match pattern"),
    ],
)
def test_a_manifest_that_does_not_validate_is_refused_by_the_field_that_is_wrong(
    tmp_path: Path, field: dict[str, Any], words: str
) -> None:
    folder = write_bundle(tmp_path / "bundle", **({"name": "odd"} | field))
    with pytest.raises(BundleError) as refused:
        open_bundle(folder)
    assert str(refused.value).startswith(f"{folder / MANIFEST}: ")
    assert words in str(refused.value)
