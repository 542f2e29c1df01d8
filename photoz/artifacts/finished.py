"""Which slices are done, found in a few requests however many slices there are.

Receipts say it. Marks beside them sum it up in a tree: slices in groups of 32, those in groups of 32, up to one group.
A mark is only written once its receipt is there, or all marks below it: it may be missing, but it is never wrong.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from photoz.artifacts.refs import finished_folder, finished_name, slice_receipt_name
from photoz.artifacts.store import NoSuchKey, Store
from photoz.runtime import check_stop

FAN_OUT = 32


@dataclass(frozen=True)
class Finished:
    """The marks of `count` slices in the data folder `prefix`."""

    store: Store
    prefix: str
    count: int
    fan_out: int = FAN_OUT

    def add(self, index: int) -> bool:
        """Mark slice `index`, whose receipt has been written; True if all receipts are there.

        The last slice of a group goes on to the group above it. Where the last one died before that, the next slice
        that looks there finds the group complete, and marks it.
        """
        node = index
        for level in range(self._levels()):
            self._mark(level, node)
            node //= self.fan_out
            if not self._complete(level, node):
                return False
        return True

    def _complete(self, level: int, group: int) -> bool:
        """Whether all below a group are done. Ends at the first that is not; what is done up to there is marked."""
        marked = {item.key for item in self.store.list(self.prefix + finished_folder(self.count, level, group))}
        for node in self._members(level, group):
            if self._key(level, node) not in marked:
                check_stop()
                if not (self._complete(level - 1, node) if level else self._has_receipt(node)):
                    return False
                self._mark(level, node)
        return True

    def _members(self, level: int, group: int) -> Iterator[int]:
        nodes = -(-self.count // self.fan_out**level)
        yield from range(group * self.fan_out, min((group + 1) * self.fan_out, nodes))

    def _levels(self) -> int:
        """Levels of marks: none for one slice, one up to 32, two up to 1024."""
        return next(level for level in range(self.count) if self.fan_out**level >= self.count)

    def _has_receipt(self, index: int) -> bool:
        try:
            self.store.get(self.prefix + slice_receipt_name(index, self.count))
        except NoSuchKey:
            return False
        return True

    def _key(self, level: int, node: int) -> str:
        return self.prefix + finished_name(self.count, level, node // self.fan_out, node)

    def _mark(self, level: int, node: int) -> None:
        self.store.put(self._key(level, node), b"{}")
