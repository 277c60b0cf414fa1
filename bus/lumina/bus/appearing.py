"""A file that appears under its name when it is whole, or not at all, also in a folder in which others may write."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EEXIST
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO


@contextmanager
def appearing(path: Path, *, replace: bool = False) -> Iterator[BinaryIO]:
    """Write a file for the time of the block, beside its place; at the end it is named `path`.

    Nobody can guess what it is called until then, and what stands under that name is never opened: in a shared folder
    a link could lead anywhere.

    Raises:
        FileExistsError: There is one of this name, and `replace` is false.
        OSError: It can't be written; the error names the file.
    """
    if os.path.lexists(path) and not replace:
        raise _exists(path)
    fresh = path.with_name(f".{path.name}.{token_hex(8)}.new")
    try:
        with fresh.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replace:
            fresh.replace(path)
        else:
            _name(fresh, path=path)
    except OSError as error:
        if error.filename in {None, str(fresh)}:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        fresh.unlink(missing_ok=True)


def _name(fresh: Path, *, path: Path) -> None:
    """Give a file its name, unless somebody else was first."""
    try:
        os.link(fresh, path)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:  # a file system without links: there is a moment between the look and the name
        if os.path.lexists(path):
            raise _exists(path) from error
        fresh.replace(path)


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(EEXIST, "it is there already", str(path))
