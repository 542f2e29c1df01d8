"""The documents: links resolve, the README stays short, benchmarks find their place in docs/results.md."""

import re
import subprocess
from pathlib import Path

from benchmarks.write import PAGE, placed

ROOT = Path(__file__).parent.parent
MARKED = re.compile(r"<!-- (\w+) -->\n\n(?:.*\n)+?\n<!-- end of (\w+) -->")


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_every_relative_link_in_the_documents_leads_to_a_file_and_heading() -> None:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    broken = []
    for path in [ROOT / name for name in listed.split()]:
        for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
            if link.startswith("http"):
                continue
            name, _, heading = link.partition("#")
            target = (path.parent / name) if name else path
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M) if heading and target.exists() else []
            if not target.exists() or (heading and heading not in map(anchor, headings)):
                broken.append(f"{path.relative_to(ROOT)}: {link}")
    assert broken == []


def test_the_readme_has_fewer_than_700_words() -> None:
    assert len((ROOT / "README.md").read_text().split()) < 700


def test_a_benchmark_replaces_its_own_table_in_the_results_and_nothing_else() -> None:
    page = PAGE.read_text()
    topics = MARKED.findall(page)
    assert topics and all(begin == end for begin, end in topics)
    assert all((ROOT / "benchmarks" / f"{topic}.py").exists() for topic, _ in topics)
    for topic, _ in topics:
        written = placed(page, topic, "| new |")
        assert f"<!-- {topic} -->\n\n| new |\n\n<!-- end of {topic} -->" in written
        others = [match.group() for match in MARKED.finditer(page) if match.group(1) != topic]
        assert all(other in written for other in others)
    assert placed(page, "no such topic", "x") == page
