"""The page itself: self-contained, escaped, readable without scripts."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from photoz.artifacts import Artifact, Destination, Ref, load, open_store
from photoz.evaluate import EvaluateSettings, evaluate_predictions
from photoz.evaluate.metrics import Estimate
from photoz.evaluate.report import Banner, Page, error_text, number_text, render, value_text
from photoz.surveys import survey_named
from tests.evaluate_chain import chain, sdss_rows

HOSTILE = "<script>alert(1)</script>&\"'"


class Seen(HTMLParser):
    """Tags, attributes and how they nest."""

    VOID = frozenset({"meta", "img", "line", "path", "source", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> Seen:
    """Parse, and check that every tag is closed where it should be."""
    seen = Seen()
    seen.feed(page)
    assert seen.open == []
    return seen


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    rows = sdss_rows(400)
    rows["object_id"] = [f"sdss-dr17/{1237648720693755918 + number}" for number in range(len(rows))]
    store = open_store(str(tmp_path_factory.mktemp("store")))
    predictions = chain(store, rows, simulated=False)
    evaluate_predictions(predictions, EvaluateSettings(bootstrap=20, gallery=3), Destination(store, "t"))
    return load(store, Ref("report", "t"))


def test_page_asks_nothing_of_the_network_and_runs_no_script(report: Artifact) -> None:
    seen = parsed(report.read("index.html").decode())
    for tag, attributes in seen.tags:
        assert tag not in ("script", "link", "iframe", "object", "form")
        for name in ("src", "srcset", "data", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)


def test_links_inside_the_page_have_targets_and_others_go_to_skyserver(report: Artifact) -> None:
    seen = parsed(report.read("index.html").decode())
    targets = {attributes["id"] for _, attributes in seen.tags if "id" in attributes}
    links = [str(attributes["href"]) for tag, attributes in seen.tags if tag == "a"]
    assert {link[1:] for link in links if link.startswith("#")} <= targets
    outside = [link for link in links if not link.startswith("#")]
    assert len(outside) == 6
    assert all("/dr17/VisualTools/explore/summary?objId=12376" in link for link in outside)


def test_every_image_says_what_it_shows(report: Artifact) -> None:
    images = [attributes for tag, attributes in parsed(report.read("index.html").decode()).tags if tag == "img"]
    assert len(images) >= 15
    assert all(attributes.get("alt") for attributes in images)


def test_text_of_a_catalogue_never_becomes_markup(report: Artifact) -> None:
    page = report.read("index.html").decode()
    assert "<script" not in page
    assert "r &lt;script&gt;" in page  # the fixture's attrition holds it


def test_hostile_text_is_escaped_wherever_it_appears() -> None:
    page = Page(
        title=HOSTILE,
        lead=HOSTILE,
        scored=False,
        deep=False,
        banners=[Banner(HOSTILE, HOSTILE, True)],
        footer=HOSTILE,
        flag_note=HOSTILE,
        attrition=[{"cut": HOSTILE, "rows": 3, "removed": None}],
        provenance=[{"ref": HOSTILE, "holds": HOSTILE, "settings": HOSTILE, "digest": HOSTILE}],
        dictionary=[{"name": HOSTILE, "unit": HOSTILE, "meaning": HOSTILE}],
    )
    text = render(page).decode()
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(1)") >= 12
    parsed(text)


def test_only_real_sdss_ids_link_to_skyserver() -> None:
    sdss, embedded = survey_named("sdss-dr17"), survey_named("embedded")
    assert sdss.link("sdss-dr17/1237648720693755918") is not None
    assert sdss.link("embedded/1237648720693755918") is None
    assert sdss.link('sdss-dr17/1"><script>') is None
    assert embedded.link("embedded/1237648720693755918") is None


def test_numbers_are_written_as_people_write_them() -> None:
    assert number_text(-0.00004, 4) == "0.0000"
    assert number_text(-0.0123, 3) == "−0.012"
    one = Estimate(0.0456, 0.0031)
    assert (value_text(one, 1, True), error_text(one, 1, True)) == ("4.6 %", "0.3 %")
    assert value_text(Estimate(None, reason="x"), 3, False) == "n/a"


def test_report_of_real_images_does_not_call_them_simulated(report: Artifact) -> None:
    page = report.read("index.html").decode()
    assert "Simulated images." not in page
    assert "real 32×32 px JPEG images" in page


def test_templates_are_packaged() -> None:
    import photoz.evaluate

    folder = Path(photoz.evaluate.__file__).parent / "templates"
    assert {path.name for path in folder.iterdir()} == {"report.css", "report.html.j2"}
