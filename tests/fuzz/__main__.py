"""Coverage-guided fuzzing of one target: `python -m tests.fuzz formats --seconds 60` (pip install -e '.[fuzz]').

Findings are written to tests/fuzz/findings/<target>/, from where test_untrusted_bytes.py runs them for ever after.
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

FINDINGS = Path(__file__).parent / "findings"

with atheris.instrument_imports(include=["photoz", "numpy.lib", "PIL", "astropy.io.fits", "json", "ast"]):
    from tests.fuzz.targets import TARGETS, outcome, repaired


def main() -> None:
    """Fuzz until the time is up or something is found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--memory-mb", type=int, default=3000)
    asked = parser.parse_args()
    target, found = TARGETS[asked.target], FINDINGS / asked.target
    found.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds):
            (Path(corpus) / str(number)).write_bytes(seed)
        options = [
            f"-max_total_time={asked.seconds}",
            f"-rss_limit_mb={asked.memory_mb}",
            "-timeout=20",
            "-max_len=20000",
            f"-artifact_prefix={found}/",
        ]
        atheris.Setup([sys.argv[0], *options, corpus], lambda data: outcome(target, repaired(data)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
