"""The tables of docs/reliability.md, between their marks."""

import platform
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.tally import Row, Tally

_HEADINGS = {
    "kill": ("SIGKILL", "job", "killed"),
    "passing fault": ("Faults that pass", "of the", "fault"),
    "lasting fault": ("Faults that stay", "of the", "fault"),
}


def write_tables(tally: Tally, document: Path, seed: int, seconds: float) -> None:
    """Put a table for each experiment that was made in the place of the one that stands in the document."""
    text = document.read_text()
    for experiment in _HEADINGS:
        if tally.total(experiment, "tried"):
            begin, end = f"<!-- chaos: {experiment} -->", f"<!-- end of {experiment} -->"
            head, _, rest = text.partition(begin)
            _, _, tail = rest.partition(end)
            text = f"{head}{begin}\n\n{_as_markdown(tally, experiment, seed, seconds)}\n\n{end}{tail}"
    document.write_text(text)


def _as_markdown(tally: Tally, experiment: str, seed: int, seconds: float) -> str:
    title, where, what = _HEADINGS[experiment]
    rows = [row for key, row in sorted(tally.rows.items()) if key[0] == experiment]
    rows = _by_point(rows) if experiment == "kill" else rows
    lines = [f"| {where} | {what} | tried | survived | data lost | exit codes |", "|---|---|--:|--:|--:|---|"]
    lines += [_line(row) for row in rows]
    tried, survived, lost = (tally.total(experiment, column) for column in ("tried", "survived", "lost"))
    lines.append(f"| **all** | | **{tried}** | **{survived}** | **{lost}** | |")
    when = datetime.now(UTC).date().isoformat()
    made = f"{when}, {platform.machine()}, 2 cores, seed {seed}, {seconds / 60:.0f} minutes."
    return f"### {title}\n\n{made}\n\n" + "\n".join(lines)


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
