"""Surveys by name. Another one is a folder here, or a package with an entry point in the group `photoz.surveys`."""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points

from photoz.errors import BadInput, did_you_mean
from photoz.surveys.embedded import EMBEDDED
from photoz.surveys.sdss.survey import SDSS_DR17
from photoz.surveys.survey import Survey

TABLE = "table"
"""What --survey calls the user's own table, which no survey serves."""

_surveys: dict[str, Survey] = {survey.name: survey for survey in (EMBEDDED, SDSS_DR17)}


def register(survey: Survey) -> None:
    """Add a survey to those that --survey knows, in this process."""
    _surveys[survey.name] = survey


@cache
def _register_installed() -> None:
    for point in entry_points(group="photoz.surveys"):
        register(point.load())


def surveys() -> list[Survey]:
    """All that are known."""
    _register_installed()
    return list(_surveys.values())


def find_survey(name: str) -> Survey | None:
    """The survey of this name, or None."""
    if name not in _surveys:
        _register_installed()
    return _surveys.get(name)


def survey_named(name: str, also: Sequence[str] = ()) -> Survey:
    """The survey of this name. Raises BadInput where there is none; `also` are other names that --survey takes."""
    found = find_survey(name)
    if found is None:
        names = [*(survey.name for survey in surveys()), *also]
        close = did_you_mean(name, names)
        raise BadInput(f"--survey {name!r}: expected one of {', '.join(names)}{close}")
    return found
