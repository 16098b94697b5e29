"""Whether a file lies in the page cache, and how to get it out of there."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

# What the kernel may still hold of a file that counts as cold: it reads ahead as it likes.
_COLD = 0.02


def make_cold(paths: Sequence[Path]) -> bool:
    """Drop files from the page cache and say whether that worked.

    It works on Linux, for files that no process has mapped. Elsewhere, and where the kernel keeps
    the pages, the answer is ``False``: a load that follows is not a cold one.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    try:
        for path in paths:
            file = os.open(path, os.O_RDONLY)
            try:
                os.fsync(file)  # pages that are not yet written cannot be dropped
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)
    except OSError:
        return False
    left = [resident(path) for path in paths]
    return bool(left) and all(part is not None and part <= _COLD for part in left)


def resident(path: Path) -> float | None:
    """Return which fraction of a file lies in the page cache; ``None`` if nobody says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            # A private, writable mapping: ctypes takes the address of no other.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError):
        return None
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    try:
        anchor = ctypes.c_char.from_buffer(mapped)
        try:
            failed = ctypes.CDLL(None).mincore(
                ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(size), pages
            )
        finally:
            del anchor
    except (OSError, AttributeError, TypeError):
        return None
    finally:
        mapped.close()
    return None if failed else sum(page & 1 for page in pages) / len(pages)
