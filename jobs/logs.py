"""Log lines on stderr, for people or for machines."""

import json
import logging
import warnings
from datetime import UTC, datetime

from photoz import progress, runtime
from photoz.redaction import shown


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": shown(record.getMessage()),
        }
        return json.dumps(line, ensure_ascii=True)


class _TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


class _BesideBars(logging.Handler):
    """Prints above a live progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        progress.console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)


def set_up(log_format: str) -> None:
    """Send photoz's log lines, and other packages' warnings, to stderr as `text` or `json`."""
    as_json = log_format == "json"
    first = runtime.world().rank == 0  # the other ranks do the same work, and would say the same
    progress.show_bars(first and not as_json and progress.console.is_terminal)
    handler = _BesideBars() if progress.bars_shown() else logging.StreamHandler()
    handler.setFormatter(_JsonLines() if as_json else _TextLines("%(asctime)s %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("photoz").setLevel(logging.INFO if first else logging.WARNING)
    logging.getLogger("photoz.ranks").setLevel(logging.INFO)  # each rank says for itself whom it waits for
    logging.captureWarnings(True)
    # Other packages' deprecations are for developers, who see them as errors in the tests.
    warnings.simplefilter("ignore", DeprecationWarning)
