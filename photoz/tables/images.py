"""Image files that a user's table names: where they are, and what they hold."""

import hashlib
import logging
import os
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pyarrow as pa

from photoz.errors import BadInput
from photoz.tables.rows import TableRows

log = logging.getLogger("photoz.catalog")

_LONGEST_PATH, _LONGEST_NAME = 4000, 255  # bytes, of Linux
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\|[^/]*\\")


def image_root(path: Path, images_from: str | None) -> Path:
    """The folder that image names are relative to: the table's own, or the one that --images-from names."""
    root = path.resolve().parent if images_from is None else Path(images_from)
    if not root.is_dir():
        tilde = "; ~ is not expanded here, so write the folder out" if str(images_from).startswith("~") else ""
        raise BadInput(
            f"--images-from {images_from}: no such folder; expected the one that image paths start in{tilde}"
        )
    root = root.resolve()
    try:
        str(root).encode()  # the catalogue says where its images are
    except UnicodeEncodeError:
        shown = os.fsencode(root).decode(errors="backslashreplace")
        raise BadInput(
            f"the folder {shown} has a name that is no UTF-8; expected one that is: rename or link it"
        ) from None
    return root


def image_columns(rows: TableRows, names: pa.Array, root: Path, images_from: str | None) -> dict[str, pa.Array]:
    """`image`, each name relative to the root, and `image_sha256`, null where there is no file.

    BadInput if all are missing, or one leads out of the root, or can't be a file's name.
    """
    given: Sequence[str | None] = names.to_pylist()
    relative = [_relative(rows, row, name, root, images_from) if name else None for row, name in enumerate(given)]
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = list(pool.map(lambda name: _file_digest(root / name) if name else None, relative))
    if not any(digests):
        first = next(filter(None, relative), None)
        looked = f"looked for {root / first}" if first else "the column is empty"
        elsewhere = "" if images_from or not first else ", or name their folder with --images-from"
        raise rows.refusal(f"none of the {len(given)} images is there ({looked}); check the image column{elsewhere}")
    missing = digests.count(None)
    if missing:
        log.warning(
            "%s: %d of %d images are missing; shard will list them as failures", rows.path.name, missing, len(given)
        )
    return {"image": pa.array(relative, pa.string()), "image_sha256": pa.array(digests, pa.string())}


def _relative(rows: TableRows, row: int, name: str, root: Path, images_from: str | None) -> str:
    """The name relative to the root; BadInput if it is no name of a file below it."""
    where = f"image = {name[:200]!r} in row {rows.number(row)}"
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise rows.refusal(
            f"{where} can't be a file's name in this locale ({sys.getfilesystemencoding()}); "
            "expected a UTF-8 locale: set LC_ALL=C.UTF-8"
        ) from None
    if "://" in name:
        raise rows.refusal(f"{where} is a URL; expected a file: download the images first")
    if name.startswith("~"):
        raise rows.refusal(f"{where}: ~ is not expanded; expected a path relative to {root}")
    pure = PurePosixPath(name)
    if pure.is_absolute() and images_from is not None:
        start = next((folder for folder in (Path(images_from).absolute(), root) if pure.is_relative_to(folder)), None)
        if start is None:
            raise rows.refusal(f"{where} is outside --images-from {images_from}; expected a path below that folder")
        pure = pure.relative_to(start)
        name = str(pure)
    if _escapes(root, pure) or _escapes(root, PurePosixPath(name.replace("\\", "/"))):
        place = "the table's folder" if images_from is None else f"--images-from {images_from}"
        absolute = ": name the root of absolute paths with --images-from" if pure.is_absolute() else ""
        raise rows.refusal(f"{where} is outside {place}, or no path; expected a path relative to {root}{absolute}")
    if _WINDOWS.match(name) and not os.path.lexists(root / name):
        raise rows.refusal(f"{where} is a Windows path; expected / between folders, relative to {root}")
    return name


def _escapes(root: Path, pure: PurePosixPath) -> bool:
    """Whether a name can't be a file's in the folder, or leads out of it, also through a symlink."""
    depth = 0
    for part in pure.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    name = str(pure)
    if pure.is_absolute() or "\0" in name or len(os.fsencode(name)) > _LONGEST_PATH:
        return True
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in pure.parts):
        return True
    return not Path(os.path.realpath(root / name)).is_relative_to(root)


def _file_digest(file: Path) -> str | None:
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
