"""The tables of docs/reliability.md, between their marks."""

import platform
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.tally import Row, Tally

BEGIN, END = "<!-- chaos: begin (written by `make chaos`) -->", "<!-- chaos: end -->"
_HEADINGS = {
    "kill": ("SIGKILL", "job", "killed"),
    "passing fault": ("Faults that pass", "of the", "fault"),
    "lasting fault": ("Faults that stay", "of the", "fault"),
}


def write_table(tally: Tally, document: Path, seed: int, seconds: float) -> None:
    """Put the tally's tables in the place of those that stand in the document."""
    text = document.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    document.write_text(f"{head}{BEGIN}\n\n{as_markdown(tally, seed, seconds)}\n{END}{tail}")


def as_markdown(tally: Tally, seed: int, seconds: float) -> str:
    """The tables and what they are of."""
    when = datetime.now(UTC).date().isoformat()
    parts = [f"{when}, {platform.machine()}, 2 cores, seed {seed}, {seconds / 60:.0f} minutes."]
    for experiment, (title, where, what) in _HEADINGS.items():
        rows = [row for key, row in sorted(tally.rows.items()) if key[0] == experiment]
        rows = _by_point(rows) if experiment == "kill" else rows
        lines = [f"| {where} | {what} | tried | survived | data lost | exit codes |", "|---|---|--:|--:|--:|---|"]
        lines += [_line(row) for row in rows]
        tried, survived, lost = (tally.total(experiment, column) for column in ("tried", "survived", "lost"))
        lines.append(f"| **all** | | **{tried}** | **{survived}** | **{lost}** | |")
        parts.append(f"### {title}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _by_point(rows: list[Row]) -> list[Row]:
    """One row a crash point, over all jobs."""
    points: dict[str, Row] = {}
    for row in rows:
        point = points.setdefault(row.what, Row("kill", "", row.what))
        point.where = ", ".join(sorted({*filter(None, point.where.split(", ")), row.where}))
        point.tried, point.survived, point.lost = (
            point.tried + row.tried,
            point.survived + row.survived,
            point.lost + row.lost,
        )
    return [points[name] for name in sorted(points)]


def _line(row: Row) -> str:
    codes = "killed, then 0" if row.experiment == "kill" else ", ".join(map(str, row.codes))
    return f"| {row.where} | {row.what} | {row.tried} | {row.survived} | {row.lost} | {codes} |"
