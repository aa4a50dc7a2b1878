"""Freed memory, kept for the next batch."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of malloc.h
_INSIDE = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_MAX: 0}
# The thresholds that glibc reaches by itself once large blocks were freed, which it no longer does by itself
# after one was set: with those that it begins with, scoring ran at 0.6 to 0.8 of its speed after a training.
_USUAL = {_TRIM_THRESHOLD: 2**26, _MMAP_THRESHOLD: 2**25, _MMAP_MAX: 2**16}


# For training: scoring gains less than a tenth by it, and is to stay small.
@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Inside the block, memory that is freed stays with the process; at its end it goes back to the system.

    torch keeps no memory of its own on a CPU, and glibc gives the large blocks of a batch back as soon as
    they are freed. The system then clears every page again before the next batch may have it: small
    convolutional networks trained at up to 1.3 times the speed without that. With another C library
    nothing happens.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "mallopt"):
        yield
        return
    for option, value in _INSIDE.items():
        library.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in _USUAL.items():
            library.mallopt(option, value)
        library.malloc_trim(0)
