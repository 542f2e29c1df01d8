"""Run a benchmark, keep its output in benchmarks/log/, and put it into docs/results.md.

    python -m benchmarks.write loading [--rounds 9 or other flags of the benchmark]

The page has a place for each topic, between `<!-- loading -->` and `<!-- end of loading -->`.
"""

import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results.md"
LOG = ROOT / "benchmarks" / "log"


def placed(page: str, topic: str, found: str) -> str:
    """The page with `found` in the topic's place; a topic without one leaves it unchanged."""
    begin, end = f"<!-- {topic} -->", f"<!-- end of {topic} -->"
    head, mark, rest = page.partition(begin)
    if not mark:
        return page
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n\n{found}\n\n{end}{tail}"


def machine() -> str:
    """Processor, Python and torch, such as `16 x AMD EPYC 7763, Python 3.11.2, torch 2.13.0`."""
    import torch

    cpus = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in cpus if line.startswith("model name")] or [platform.machine()]
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return f"{gpu}{len(names)} x {names[0]}, Python {platform.python_version()}, torch {torch.__version__}"


def main() -> int:
    """Run, save, write."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    topic, flags = sys.argv[1], sys.argv[2:]
    ran = subprocess.run([sys.executable, "-m", f"benchmarks.{topic}", *flags], stdout=subprocess.PIPE, text=True)
    print(ran.stdout)
    if ran.returncode:
        return ran.returncode
    today = datetime.now(UTC).date().isoformat()
    command = " ".join(["python -m", f"benchmarks.{topic}", *flags])
    found = f"{today}, {machine()}: `{command}`\n\n{ran.stdout.strip()}"
    LOG.joinpath(f"{today}-{topic}.md").write_text(f"# {topic}, {today}\n\n{found}\n")
    PAGE.write_text(placed(PAGE.read_text(), topic, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
