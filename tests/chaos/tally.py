"""Counts of what was tried and what became of it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Row:
    """How often something was done to jobs, how often all was well afterwards, and how often data were lost."""

    experiment: str
    where: str
    what: str
    tried: int = 0
    survived: int = 0
    lost: int = 0
    codes: list[int] = field(default_factory=list)


@dataclass
class Tally:
    """Rows by experiment, place and fault."""

    rows: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def row(self, experiment: str, where: str, what: str) -> Row:
        """The row of that name, made if it is new."""
        return self.rows.setdefault((experiment, where, what), Row(experiment, where, what))

    def add(self, other: "Tally") -> None:
        """Take another tally's counts in."""
        for key, row in other.rows.items():
            mine = self.row(*key)
            mine.tried, mine.survived, mine.lost = (
                mine.tried + row.tried,
                mine.survived + row.survived,
                mine.lost + row.lost,
            )
            mine.codes = sorted({*mine.codes, *row.codes})
        self.complaints += other.complaints

    def save(self, path: Path) -> None:
        """Write it to a file, for the process that waits for it."""
        rows = [asdict(row) for row in self.rows.values()]
        path.write_text(json.dumps({"rows": rows, "complaints": self.complaints}))

    @classmethod
    def load(cls, path: Path) -> "Tally":
        """Read it back."""
        document = json.loads(path.read_text())
        rows = [Row(**row) for row in document["rows"]]
        return cls({(row.experiment, row.where, row.what): row for row in rows}, document["complaints"])

    def total(self, experiment: str, column: str) -> int:
        """A column's sum over an experiment."""
        return sum(getattr(row, column) for row in self.rows.values() if row.experiment == experiment)
