"""A bundle comes into place whole or not at all."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from models.bundle import MANIFEST, bundles_in, read_manifest
from models.errors import BundleError
from models.export.errors import ExportError
from models.export.staging import require_space, staging


def test_an_export_that_fails_removes_what_it_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="late"), staging(tmp_path / "a" / "b" / "bundle"):
        raise ValueError("late")
    assert list(tmp_path.iterdir()) == []


def test_what_another_export_is_writing_stays(tmp_path: Path) -> None:
    with staging(tmp_path / "bundle") as one:
        (one / "first").touch()
        with staging(tmp_path / "other"), staging(tmp_path / "bundle") as two:
            (two / "second").touch()
            assert one.exists()
        assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["second"]
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["first"]


def test_a_bundle_that_was_being_replaced_when_the_export_was_killed_comes_back(tmp_path: Path) -> None:
    previous = tmp_path / ".bundle.heedful-export-x" / "previous"
    previous.mkdir(parents=True)
    (previous / "old").touch()
    with pytest.raises(ValueError, match="late"), staging(tmp_path / "bundle"):
        raise ValueError("late")
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_who_is_killed_between_the_two_moves_leaves_the_old_bundle_where_it_is_found(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / MANIFEST).write_text("{}")
    killed = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from models.export.staging import staging\n"
        "rename = Path.rename\n"
        "Path.rename = lambda path, target: (rename(path, target), os._exit(9))\n"
        "with staging(Path(sys.argv[1])) as staged:\n"
        "    (staged / 'new').touch()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", killed, str(bundle)], env=environment, check=False).returncode == 9
    assert not bundle.exists()
    assert bundles_in(tmp_path) == [bundle]
    with pytest.raises(BundleError, match=r"left it in .*\.bundle\.heedful-export-.*/previous: move it back"):
        read_manifest(bundle)
    with pytest.raises(ValueError, match="late"), staging(bundle):
        raise ValueError("late")
    assert (bundle / MANIFEST).is_file()
    assert list(tmp_path.iterdir()) == [bundle]


def test_folders_that_only_look_alike_are_left_alone(tmp_path: Path) -> None:
    for name in (".bundle", ".bundle-notes", ".bundle2.heedful-export-x"):
        (tmp_path / name).mkdir()
    with staging(tmp_path / "bundle"):
        pass
    assert len(list(tmp_path.iterdir())) == 4


def test_a_disk_that_is_too_small_is_named_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=10**8))
    require_space(tmp_path, 10**8)
    with pytest.raises(
        ExportError, match=r"needs 1,500 MB while the export runs and its disk has 100 MB free: make room"
    ):
        require_space(tmp_path, 1_500_000_000)
