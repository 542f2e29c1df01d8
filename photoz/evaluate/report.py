"""The report as one HTML file: no scripts, no requests, every string escaped."""

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from photoz.evaluate.gallery import PLOT_HEIGHT, PLOT_WIDTH, Card
from photoz.evaluate.metrics import Estimate
from photoz.evaluate.panels import Panel
from photoz.evaluate.scoring import Row

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Banner:
    """Something to know before reading on."""

    title: str
    text: str
    warning: bool = False


@dataclass(frozen=True)
class MetricLine:
    """One metric as shown: in per cent or with `digits` decimals."""

    label: str
    estimate: Estimate
    meaning: str
    digits: int = 4
    percent: bool = False


@dataclass(frozen=True)
class Page:
    """Everything that the template shows. Without scores (`scored` False) the sections that need them are left out."""

    title: str
    lead: str
    scored: bool
    deep: bool  # redshifts beyond 1, where R² of log(1+z) tells more than R²
    banners: list[Banner]
    footer: str
    tiles: list[MetricLine] = field(default_factory=list)
    metrics_note: str = ""
    metric_tables: list[tuple[str, list[MetricLine]]] = field(default_factory=list)
    comparison: list[Row] = field(default_factory=list)
    comparison_note: str = ""
    reference: str | None = None
    remarks: list[str] = field(default_factory=list)
    comparison_panel: Panel | None = None
    accuracy_panels: list[Panel] = field(default_factory=list)
    pdf_panels: list[Panel] = field(default_factory=list)
    flag_note: str = ""
    galleries: list[tuple[str, list[Card]]] = field(default_factory=list)
    gallery_note: str = ""
    redshifts_panel: Panel | None = None
    sample_panels: list[Panel] = field(default_factory=list)
    animation: tuple[bytes, bytes] | None = None
    animation_caption: str = ""
    attrition: list[dict[str, Any]] = field(default_factory=list)
    catalog_ref: str = ""
    provenance: list[dict[str, str]] = field(default_factory=list)
    dictionary: list[dict[str, str]] = field(default_factory=list)

    def panels(self) -> list[Panel]:
        """Every figure once."""
        alone = [panel for panel in (self.comparison_panel, self.redshifts_panel) if panel]
        return [*alone, *self.accuracy_panels, *self.pdf_panels, *self.sample_panels]


def render(page: Page) -> bytes:
    """The page as HTML. Whatever a catalogue or a settings file holds arrives as text, never as markup."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    environment.filters |= {"data_uri": data_uri, "value": value_text, "error": error_text, "number": number_text}
    environment.filters["coordinate"] = _coordinate
    template = environment.get_template("report.html.j2")
    return template.render(page=page, plot_width=PLOT_WIDTH, plot_height=PLOT_HEIGHT).encode()


def data_uri(data: bytes, media_type: str) -> str:
    """The bytes as a URL that holds them."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def value_text(one: Estimate, digits: int, percent: bool) -> str:
    """A metric's value, such as `0.0164` or `4.6 %`."""
    return "n/a" if one.value is None else _number(one.value, digits, percent)


def error_text(one: Estimate, digits: int, percent: bool) -> str:
    """A metric's error in the same form."""
    return "" if one.error is None else _number(one.error, digits, percent)


def _number(value: float, digits: int, percent: bool) -> str:
    return f"{100 * value:.{digits}f} %" if percent else number_text(value, digits)


def number_text(value: float, digits: int) -> str:
    """A number with a true minus sign, and none before zero."""
    text = f"{value:.{digits}f}".replace("-", "−")
    return text.removeprefix("−") if float(f"{value:.{digits}f}") == 0 else text


def _coordinate(value: float) -> str:
    return f"{value:.1f}"
