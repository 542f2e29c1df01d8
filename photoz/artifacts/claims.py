"""Who works in a data folder, and who clears it: never both at once.

A job first writes its claim, then looks for somebody clearing; whoever clears first writes a mark, then looks for
claims. A store's listing shows what was written before it, so at least one of the two sees the other.
"""

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence

from photoz.artifacts.manifest import canonical_json
from photoz.artifacts.refs import CLAIMS, CLEARING, FINISHED
from photoz.artifacts.store import Store, StoredObject
from photoz.errors import PhotozError, TryAgain

log = logging.getLogger("photoz.artifacts")

DEAD_AFTER_S = 86_400.0  # a claim that nobody has renewed for so long is that of a dead job
RENEW_AFTER_S = 3_600.0


class Claim:
    """One process's claim on a data folder: that what lies there, or will, is needed. `about` says who it is."""

    def __init__(self, store: Store, folder: str, about: Mapping[str, object]) -> None:
        self._store, self._folder, self._about = store, folder, canonical_json(about)
        self._key = f"{folder}{CLAIMS}{uuid.uuid4().hex}.json"
        self._written_at = 0.0

    def take(self) -> None:
        """Raises TryAgain while the folder is being cleared."""
        self._write()
        if next(iter(self._store.list(self._folder + CLEARING)), None):
            self.release()
            raise TryAgain(
                f"{self._store.url}: {self._folder} is being cleared by `artifacts rm` or `gc`: run the same command "
                "in a minute; if that one died, run `photoz-job artifacts gc --older-than 0 --yes` first"
            )

    def renew(self) -> None:
        """Keep the claim alive in a long job."""
        if time.monotonic() - self._written_at > RENEW_AFTER_S:
            self._write()

    def release(self) -> bool:
        """Give the claim up; False for a store that fails now and keeps it: it dies by itself."""
        try:
            self._store.delete(self._key)
        except PhotozError as error:
            log.debug("claim left behind: %s", error)
            return False
        return True

    def _write(self) -> None:
        self._store.put(self._key, self._about)
        self._written_at = time.monotonic()


def clear(
    store: Store, folder: str, unneeded: Callable[[Sequence[StoredObject]], Sequence[str]], dead_after_s: float
) -> list[str] | None:
    """Delete the keys that `unneeded` picks among the folder's objects, and return them.

    None, with nothing deleted, while a job has a claim on the folder that is younger than `dead_after_s`.
    """
    mark = f"{folder}{CLEARING}{uuid.uuid4().hex}.json"
    store.put(mark, b"{}")
    try:
        found = list(store.list(folder))
        # By the store's own clock: this machine's may be wrong.
        now = next(item.modified for item in found if item.key == mark)
        at_work = [item for item in found if now - item.modified < dead_after_s]
        if any(item.key.startswith(folder + CLAIMS) for item in at_work):
            return None
        # Somebody else's mark stays: as long as they delete, no job may begin here.
        marks = {item.key for item in at_work if item.key.startswith(folder + CLEARING)} | {mark}
        doomed = list(unneeded([item for item in found if item.key not in marks]))
        # Marks of finished slices go first: one that outlives its receipt, should this stop half-way, would be wrong.
        for key in sorted(doomed, key=lambda key: not key.startswith(folder + FINISHED)):
            store.delete(key)
        return doomed
    finally:
        store.delete(mark)
