"""A store in a local (or shared POSIX) folder."""

import errno
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

from photoz.artifacts.store import SMALL_BYTES, NoSuchKey, StoredObject, check_small
from photoz.errors import BadInput, TryAgain

TEMPORARY = ".tmp-"
_CHUNK = 2**20
_TRIES = 1000  # a link that leads nowhere is met again each time
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class FileStore:
    """Keys are paths below `folder`. A write goes to a temporary file beside its target, then takes its name."""

    def __init__(self, folder: Path) -> None:
        try:
            # As in a shell: `link/..` is the parent of what the link leads to.
            self.folder = folder.resolve() if ".." in folder.parts else folder.absolute()
            self.url = str(self.folder)
            in_the_way = self.folder.exists() and not self.folder.is_dir()
        except (OSError, RuntimeError) as error:  # RuntimeError: symlinks in a circle
            reason = getattr(error, "strerror", None) or error
            raise BadInput(f"store {folder}: {reason}; name another folder with --store") from None
        if os.fsencode(self.url) != self.url.encode("utf-8", "replace"):  # Parquet's reader takes paths as UTF-8
            raise BadInput(
                f"store {self.url}: a name in its path is no UTF-8, or can't be written in this locale; rename it, or "
                "set LC_ALL=C.UTF-8"
            )
        if in_the_way:
            raise BadInput(f"store {self.url}: is a file; expected a folder")

    def get(self, key: str, limit: int = SMALL_BYTES) -> bytes:
        with self._reading(key), self._path(key).open("rb") as file:
            data = file.read(limit + 1)
        return check_small(data, limit, f"store {self.url}: {key}")

    def stream(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(_CHUNK))
        # Unbuffered: Python's own buffer would copy every byte once more.
        with self._reading(key), self._path(key).open("rb", buffering=0) as file:
            file.seek(start)
            left = sys.maxsize if stop is None else stop - start
            while left > 0 and (size := file.readinto(buffer[: min(left, _CHUNK)])):
                left -= size
                yield buffer[:size]

    def put(self, key: str, source: bytes | Path) -> None:
        self._write(key, source, lambda temporary, target: temporary.replace(target))

    def create(self, key: str, source: bytes | Path) -> bool:
        try:
            self._write(key, source, lambda temporary, target: os.link(temporary, target))
        except FileExistsError:
            return False
        return True

    def list(self, prefix: str) -> Iterator[StoredObject]:
        for key, path in self._files(prefix):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # removed or renamed since it was listed
            yield StoredObject(key, status.st_size, status.st_mtime)

    def _files(self, prefix: str) -> Iterator[tuple[str, Path]]:
        # From the deepest folder that the prefix names: those beside it may hold very many files.
        folder = prefix[: prefix.rfind("/") + 1]
        try:
            yield from _files_below(self._path(folder), folder, prefix)
        except OSError as error:
            self._raise(error, prefix)

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._raise(error, key)
        # Empty folders have no meaning in an object store: leave none behind.
        for folder in path.parents:
            if folder == self.folder:
                break
            try:
                folder.rmdir()
            except OSError:
                break

    def local_path(self, key: str) -> Path | None:
        return self._path(key)

    def _path(self, key: str) -> Path:
        path = Path(os.path.normpath(self.folder / key))
        if not path.is_relative_to(self.folder):
            raise ValueError(f"key {key!r} leaves the store")
        return path

    def _write(self, key: str, source: bytes | Path, name_it: Callable[[Path, Path], object]) -> None:
        target = self._path(key)
        temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
        try:
            try:
                _write_durably(temporary, source)
                name_it(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(target.parent)
        except FileExistsError:
            raise  # `create` lost; `_make_folder` reports its own
        except OSError as error:
            self._raise(error, key)

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise NoSuchKey(key) from None
        except OSError as error:
            self._raise(error, key)

    def _raise(self, error: OSError, key: str) -> NoReturn:
        where = f"store {self.url}: {key}: {error.strerror}"
        if error.errno in DISK_FULL:
            raise TryAgain(f"{where}; free some space (`photoz-job artifacts gc`) and run the same command") from None
        if error.errno in _REFUSED:
            raise BadInput(f"{where}; give access to it, or name another folder with --store") from None
        if isinstance(error, NotADirectoryError | IsADirectoryError):
            raise BadInput(f"{where}; the store needs a folder of its own, name one with --store") from None
        raise TryAgain(f"{where}; if it stays so, check the disk or the file server") from None


def _make_folder(folder: Path) -> None:
    """Make it and its parents, however often another process's `delete` removes some of them, then empty, meanwhile."""
    for left in reversed(range(_TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return
        except FileExistsError as error:  # unless it has gone again before mkdir looked what it is
            if not left or any(map(_is_file, (folder, *folder.parents))):
                raise NotADirectoryError(errno.ENOTDIR, "something else stands where a folder is needed") from error
        except FileNotFoundError:  # a parent has gone
            if not left:
                raise


def _is_file(path: Path) -> bool:
    """Whether something other than a folder stands there, in one look: a folder may come and go between two."""
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _write_durably(path: Path, source: bytes | Path) -> None:
    with _created(path) as file:
        if isinstance(source, bytes):
            file.write(source)
        else:
            with source.open("rb") as original:
                shutil.copyfileobj(original, file, 2**20)
        file.flush()
        os.fsync(file.fileno())


def _created(path: Path) -> BinaryIO:
    while True:
        _make_folder(path.parent)
        try:
            return path.open("xb")
        except FileNotFoundError:
            continue  # another process's `delete` has just removed the folder, then empty


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return  # what was written has been deleted again already
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files_below(folder: Path, key: str, prefix: str) -> Iterator[tuple[str, Path]]:
    """(key, path) of the files whose keys start with `prefix`; temporary ones too, for gc to find."""
    try:
        children = sorted(os.scandir(folder), key=lambda child: child.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for child in children:
        name = key + child.name
        if not child.is_dir(follow_symlinks=False):
            if name.startswith(prefix):
                yield name, Path(child.path)
        elif f"{name}/".startswith(prefix) or prefix.startswith(f"{name}/"):
            yield from _files_below(Path(child.path), f"{name}/", prefix)
