"""Gives memory back between the stages of an export, so that its peak is that of one of them."""

import ctypes


def trim() -> None:
    """Give the system back what was freed; glibc would keep a third of it, in pieces."""
    freed = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries do without
    if freed is not None:
        freed(0)
