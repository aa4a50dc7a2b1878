"""Freed memory stays inside the block, and goes back to the system after it."""

import ctypes
import json
import subprocess
import sys

import pytest

CHILD = """
import ctypes, json, resource
import psutil
from lensq.models.memory import keep_freed_memory

library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

def faults(size=2**26):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        block = library.malloc(size)
        ctypes.memset(block, 1, size)
        library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

outside = faults()
with keep_freed_memory():
    first, again = faults(), faults()
    held = psutil.Process().memory_info().rss
print(json.dumps([outside, first, again, held, psutil.Process().memory_info().rss, faults(), faults(2**23)]))
"""


GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")


@pytest.mark.slow
@pytest.mark.skipif(not GLIBC, reason="another C library than glibc")
def test_freed_memory_is_used_again_inside_the_block_alone():
    run = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    outside, first, again, held, after, outside_again, batch = json.loads(run.stdout)
    assert first < outside / 5  # cleared once, for ten uses
    assert again < outside / 20
    assert held - after > 0.9 * 2**26
    assert outside_again > 0.9 * outside
    assert batch < outside / 16  # a batch's blocks, an eighth as large, twice at most
