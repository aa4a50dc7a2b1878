"""Write files so that they are whole or not there, and say clearly when they cannot be written."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path | str, remedy: str = "make space") -> Iterator[Path]:
    """A file or folder that is written beside `path` and renamed into its place when it is complete.

    After an error nothing is left; after a kill, a hidden neighbour `.partial-<process>-<name>` may be.

    Args:
        path: where the file or folder is to be. A file that is there is replaced; of a folder that is
            there, who has its files open keeps them.
        remedy: what to do about a full disk.

    Yields:
        The path to write to, with the same ending; nothing is there yet.

    Raises:
        OSError: the disk is full; names the path.
    """
    path = Path(path)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    _remove(partial)
    try:
        with space_for(path, remedy):
            yield partial
        if partial.is_dir():
            _remove(path)
        else:
            with partial.open("rb") as written:
                os.fsync(written.fileno())
        os.replace(partial, path)
    finally:
        _remove(partial)


@contextmanager
def space_for(path: Path, remedy: str = "make space") -> Iterator[None]:
    """Let an error that tells of a full disk name the path that did not fit, and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(error.errno, f"no space for {path} ({error.strerror}): {remedy}") from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
