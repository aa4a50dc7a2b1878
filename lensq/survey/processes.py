"""Processes that end with their work, with their time, or with the process that started them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import current_process, get_all_start_methods, get_context

from pebble import ProcessPool


@contextmanager
def process_pool(workers: int, initializer: Callable | None = None) -> Iterator[ProcessPool]:
    """A pool of processes, which are stopped at the end of the block, whatever they do then.

    Args:
        workers: their number.
        initializer: what each calls first.

    Raises:
        RuntimeError: this process is itself one of a pool that may start no others.
    """
    if current_process().daemon:
        raise RuntimeError("this process may start none of its own: read or simulate the survey before it")
    context = get_context("fork" if "fork" in get_all_start_methods() else None)  # no script is run again
    pool = ProcessPool(workers, initializer=initializer, context=context)
    try:
        yield pool
    finally:
        pool.stop()
        pool.join()
