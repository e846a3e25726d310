"""Writes a bundle beside its place and moves it there whole: whoever is killed midway leaves no half bundle."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.bundle import EXPORTING, MANIFEST, PREVIOUS
from models.export.errors import ExportError

_STAGED = "bundle"


def require_place(out: Path, *, replace: bool) -> None:
    """Refuse an output folder that is taken or cannot be made.

    Args:
        replace: a bundle that is there may go; anything else never.

    Raises:
        ExportError: something is there, or nothing can be written there.
    """
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        reason = "may not be written to" if above.is_dir() else "is no folder"
        raise ExportError(f"{out} cannot be made, since {above} {reason}: choose another folder with --out")
    if not out.exists():
        return
    if not (out / MANIFEST).is_file():
        raise ExportError(f"{out} exists and is no bundle: choose another folder with --out")
    if not replace:
        raise ExportError(f"{out} holds a bundle already: replace it with --force, or choose another folder with --out")


def require_space(folder: Path, needed_bytes: int) -> None:
    """Refuse before the first byte is written what would end on a full disk.

    Raises:
        ExportError: less than `needed_bytes` are free where `folder` lies.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise ExportError(
            f"{folder} needs {needed_bytes / 1e6:,.0f} MB while the export runs and its disk has {free / 1e6:,.0f} MB"
            " free: make room, or choose another place"
        )


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, which becomes `out` when the block ends and is gone when it raises.

    A bundle at `out` is moved out of the way at the end, and back should that fail. Who is killed between the two moves
    leaves it aside: the next export to `out` brings it back, and opening `out` says where it is. The folder is locked
    while it is in use: what killed exports to the same place have left is not, and is removed first.
    """
    made = [parent for parent in out.parents if not parent.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name}{EXPORTING}"
    _clean(out, prefix)
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=prefix) as scratch, _locked(Path(scratch)):
            staged = Path(scratch) / _STAGED
            staged.mkdir()
            yield staged
            _move(staged, out, Path(scratch) / PREVIOUS)
    except BaseException:
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def _clean(out: Path, prefix: str) -> None:
    """Remove what is not in use any more; a bundle that was on its way out of `out` goes back there."""
    for left in out.parent.iterdir():
        if not left.name.startswith(prefix):
            continue
        with contextlib.suppress(BlockingIOError), _locked(left):
            if (left / PREVIOUS).exists() and not out.exists():
                (left / PREVIOUS).rename(out)
            shutil.rmtree(left)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process however that ends.

    Raises:
        BlockingIOError: another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _move(staged: Path, out: Path, previous: Path) -> None:
    if out.exists():
        out.rename(previous)
    try:
        staged.rename(out)
    except OSError:
        if previous.exists():
            previous.rename(out)
        raise
