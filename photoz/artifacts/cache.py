"""Files kept on this machine's disk, shared by all its processes and held to a limit of bytes.

Every file is locked with flock while it is used or written, and the kernel undoes that however a process ends. A file
in the making is called `….part`, and its lock is what makes others wait for it rather than make it too.
"""

import errno
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

from photoz import runtime
from photoz.errors import BadInput, TryAgain

log = logging.getLogger("photoz.artifacts")

MOST_BYTES = 50 * 10**9  # unless PHOTOZ_CACHE_SIZE says otherwise
PART = ".part"
_FOLDERS = ("objects", "decoded")
_ACCOUNT = "bytes"  # its lock is held by whoever counts or evicts; it says how many bytes there are at most
_POLL_S = 0.02
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ELOOP)

# What this process has checked (path and inode), and the folders whose files it has counted: a file may have
# suffered, and an account may be out of date, since another process looked, above all after a crash.
_checked: set[tuple[Path, int]] = set()
_counted: set[Path] = set()

Fill = Callable[[BinaryIO], None]
Check = Callable[[Path], str | None]


@dataclass(frozen=True, order=True)
class _Found:
    """A file in the cache; the one used longest ago comes first."""

    used_at_ns: int
    path: Path
    bytes: int


@dataclass(frozen=True)
class Cache:
    """The files below `folder`: least recently used ones go when there are more bytes than `limit`.

    Without a limit it is 50 GB, or half of what the disk could give to the cache where that is less.
    """

    folder: Path = field(default_factory=runtime.cache_folder)
    limit: int | None = field(default_factory=runtime.cache_size)

    @contextmanager
    def holding(self, name: str, size: int, fill: Fill, check: Check) -> Iterator[BinaryIO]:
        """The file `name` of `size` bytes, open for reading; it stays until the block ends, or a map of it is gone.

        `fill` writes a missing one, and raises what it likes where it can't; `check` says what is wrong with one
        that is there, when this process first uses it. Raises TryAgain for a full disk, BadInput for a folder that
        can't be used.
        """
        with self._explained():
            file = self._hold(self.folder / name, size, fill, check)
        try:
            yield file
        finally:
            file.close()
            with self._explained():
                self.trim()

    def has_room(self, size: int) -> bool:
        """Whether a file of `size` bytes may be kept, and the disk has as much free."""
        folder = self.folder
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        return size <= free and size <= (min(MOST_BYTES, free // 2) if self.limit is None else self.limit)

    def trim(self) -> None:
        """Evict until the limit holds, if it does not: a file larger than the limit is only kept while in use."""
        try:
            used = int((self.folder / _ACCOUNT).read_text())
        except (FileNotFoundError, ValueError):
            return
        if used > self._allowed(used):
            with self._account() as account:
                _write_number(account, self._evict(0))

    def _hold(self, path: Path, size: int, fill: Fill, check: Check) -> BinaryIO:
        self._make_folder(path.parent)
        while True:
            file, damaged = _open_shared(path), None
            if file is not None:
                damaged = os.fstat(file.fileno()).st_ino
                problem = check(path) if (path, damaged) not in _checked else None
                if problem is None:
                    _checked.add((path, damaged))
                    return _used_now(file)
                file.close()
                log.warning("cache %s: %s; made again", path, problem)
            file = self._make(path, size, fill, damaged)
            if file is not None:
                return _used_now(file)

    def _make(self, path: Path, size: int, fill: Fill, damaged: int | None) -> BinaryIO | None:
        """Write the file in place of the damaged one, or of none, and hold it; None if another process was quicker."""
        part = path.with_name(path.name + PART)
        with _open_or_create(part) as file:
            if not _locked(file, part, fcntl.LOCK_EX):
                return None
            if _inode(path) != damaged:
                part.unlink()
                return None
            self._fill(file, size, fill)
            with self._account():  # while others count, no file may change its name: they would see neither
                part.replace(path)
            _checked.add((path, os.fstat(file.fileno()).st_ino))
            # From exclusive to shared: if someone gets in between, it is idle, and may be evicted.
            return _open_shared(path) if _locked(file, path, fcntl.LOCK_SH) else None

    def _fill(self, file: BinaryIO, size: int, fill: Fill) -> None:
        part = Path(file.name)
        try:
            file.truncate(0)
            self._reserve(file, size)
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            part.unlink()
            raise

    def _reserve(self, file: BinaryIO, size: int) -> None:
        """Give the file its `size` on the disk at once, where need be in place of files that nobody uses."""
        with self._account() as account:
            used, free = _number_in(account), shutil.disk_usage(self.folder).free
            if self.folder not in _counted or used is None or used + size > self._allowed(used) or size > free:
                used = self._evict(size)
                _counted.add(self.folder)
                free = shutil.disk_usage(self.folder).free
            if size > free:
                raise TryAgain(
                    f"cache {self.folder}: {size / 1e9:.3g} GB wanted, {free / 1e9:.3g} GB free; "
                    "free some, or name a larger disk with PHOTOZ_CACHE"
                )
            _write_number(account, used + size)
            if size:
                # Really taken, so that a full disk is an error here, and no signal when the file is mapped.
                os.posix_fallocate(file.fileno(), 0, size)

    def _evict(self, size: int) -> int:
        """Remove idle files, those used longest ago first, until `size` bytes fit; the bytes that are left."""
        files = sorted(self._files())
        total, free = sum(file.bytes for file in files), shutil.disk_usage(self.folder).free
        allowed = self._allowed(total)
        # Once it has to go below the limit, by a good piece: else every new file would count all others again.
        goal = allowed - size if total + size <= allowed else allowed * 15 // 16 - size
        for file in files:
            unfinished = file.path.suffix == PART
            if (unfinished or total > goal or free < size) and _removed(file.path):
                total, free = total - file.bytes, free + file.bytes
        return total

    def _files(self) -> Iterator[_Found]:
        for part in _FOLDERS:
            for folder, _, names in os.walk(self.folder / part):
                for name in names:
                    path = Path(folder) / name
                    with suppress(FileNotFoundError):
                        status = path.lstat()
                        yield _Found(status.st_mtime_ns, path, status.st_size)

    def _allowed(self, used: int) -> int:
        if self.limit is not None:
            return self.limit
        return min(MOST_BYTES, (shutil.disk_usage(self.folder).free + used) // 2)

    @contextmanager
    def _account(self) -> Iterator[BinaryIO]:
        path = self.folder / _ACCOUNT
        with _open_or_create(path) as account:
            _locked(account, path, fcntl.LOCK_EX)
            yield account

    def _make_folder(self, folder: Path) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        for each in (self.folder, folder.parent, folder):
            each.mkdir(mode=0o700, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.geteuid() and status.st_mode & 0o022:
            raise BadInput(
                f"cache {folder}: belongs to another user, and others may write there; name a folder of your own "
                "with PHOTOZ_CACHE"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._raise(error)

    def _raise(self, error: OSError) -> NoReturn:
        where = f"cache {self.folder}: {error.strerror or error}"
        if error.errno in _FULL:
            raise TryAgain(f"{where}; free some space, or name a larger disk with PHOTOZ_CACHE") from None
        if error.errno in _NO_LOCKS:
            raise BadInput(f"{where}: no file locks there; name a folder on a local disk with PHOTOZ_CACHE") from None
        if error.errno in _REFUSED:
            raise BadInput(f"{where}; expected a folder to write to: name one with PHOTOZ_CACHE") from None
        raise TryAgain(f"{where}; if it stays so, check the disk, or name another with PHOTOZ_CACHE") from None


def _open_shared(path: Path) -> BinaryIO | None:
    while True:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        if _locked(file, path, fcntl.LOCK_SH):
            return file
        file.close()


def _used_now(file: BinaryIO) -> BinaryIO:
    # By Python's clock: the kernel's own time of a file is only good to some milliseconds.
    now = time.time_ns()
    os.utime(file.fileno(), ns=(now, now))
    return file


def _open_or_create(path: Path) -> BinaryIO:
    return open(path, "r+b", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o600))


def _locked(file: BinaryIO, path: Path, how: int) -> bool:
    """Wait for the lock; False if `path` has come to be another file, or none, meanwhile."""
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if not _same(file, path):
                return False
            runtime.check_stop()
            time.sleep(_POLL_S)
        else:
            return _same(file, path)


def _removed(path: Path) -> bool:
    """Remove a file unless someone uses or writes it."""
    try:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same(file, path):
                path.unlink()
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def _same(file: BinaryIO, path: Path) -> bool:
    return _inode(path) == os.fstat(file.fileno()).st_ino


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _number_in(file: BinaryIO) -> int | None:
    file.seek(0)
    text = file.read(20)
    return int(text) if text.isdigit() else None


def _write_number(file: BinaryIO, number: int) -> None:
    file.seek(0)
    file.truncate()
    file.write(b"%d" % number)
    file.flush()
