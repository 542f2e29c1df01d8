"""The settings of a catalogue, checked when they are made."""

from dataclasses import dataclass

from photoz.catalog.shares import SplitFractions
from photoz.errors import BadInput, did_you_mean
from photoz.regions import parse_region
from photoz.settings import setting
from photoz.surveys import TABLE, survey_named, surveys
from photoz.surveys.survey import Survey
from photoz.tables.columns import parse_columns

_OF_TABLES = ("table", "columns", "where", "images_from", "drop_repeated_z", "allow_high_z")


def _in_words(known: list[Survey]) -> str:
    selections = {name: title for survey in known for name, title in survey.selections.items()}
    return "; ".join(f"{name}: {title}" for name, title in selections.items())


@dataclass(frozen=True, kw_only=True)
class CatalogSettings:
    """Which galaxies, from where, and how they are split. BadInput for a combination that makes no sense."""

    survey: str = setting(
        "embedded",
        f"Where galaxies come from: {', '.join(f'{one.name} ({one.title})' for one in surveys())}, "
        f"{TABLE} (your own galaxies).",
        metavar="NAME",
    )
    selection: str | None = setting(
        None,
        f"Sample of the survey (default: its first): {_in_words(surveys())}.",
        metavar="NAME",
    )
    region: str | None = setting(
        None, 'Only this part of the sky, deg: "cone RA DEC RADIUS" or "box RA0 RA1 DEC0 DEC1".', metavar="SHAPE"
    )
    moc: str | None = setting(None, "Only the sky inside this Multi-Order Coverage map, FITS or JSON.", metavar="FILE")
    table: str | None = setting(
        None, "Your own galaxies, with --survey table: CSV, Parquet, FITS or VOTable.", metavar="FILE"
    )
    columns: str = setting(
        "",
        "The table's names of our columns: ra=RA,dec=DEC,z_spec=Z. A unit can follow (ra=RA:hourangle), fluxes become "
        "magnitudes (mag_g=FLUX_G:nmgy), and - leaves a column out (z_spec=-).",
        metavar="OURS=YOURS,…",
    )
    where: str | None = setting(
        None,
        "Only the table's rows that meet a condition on its own columns: \"zconf >= 2 and class == 'GALAXY'\".",
        metavar="CONDITION",
    )
    images_from: str | None = setting(
        None, "Folder that the table's image paths start in, if it is not the table's own.", metavar="FOLDER"
    )
    drop_repeated_z: bool = setting(
        False, "Drop the table's rows whose z_spec repeats exactly, as 0 does where no redshift is known."
    )
    allow_high_z: bool = setting(False, "Accept a table whose median z_spec is above 7.")
    limit: int | None = setting(None, "At most so many galaxies: a uniform random sample, the same every time.")
    photometric: bool = setting(
        False, "New sky: galaxies with or without a spectrum, no z_spec, no splits; with --region or --moc."
    )
    splits: str = setting("0.7,0.1,0.2", "Shares of the galaxies that train, validate and test.", metavar="A,B,C")
    duplicates_arcsec: float = setting(
        2.0, "Spectra closer than this, with redshifts that agree, are one galaxy; 0 keeps them all.", metavar="ARCSEC"
    )
    survey_url: str | None = setting(
        None, "A server to ask instead of the survey's own, such as that of `photoz-job sky serve`.", metavar="URL"
    )

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise BadInput(f"--limit {self.limit}: expected 1 or more galaxies; leave it out for all of them")
        if not 0 <= self.duplicates_arcsec <= 60:
            raise BadInput(f"--duplicates-arcsec {self.duplicates_arcsec:g}: expected 0 to 60 arcsec")
        SplitFractions.parse(self.splits)
        self._check_area()
        if self.survey == TABLE:
            self._check_table()
        else:
            self._check_survey()
            given = [name for name in _OF_TABLES if getattr(self, name) not in (None, "", False)]
            if given:
                flag = "--" + given[0].replace("_", "-")
                raise BadInput(f"{flag} with --survey {self.survey}: expected --survey table")

    def _check_area(self) -> None:
        if self.region is not None and self.moc is not None:
            raise BadInput("--region and --moc: expected one of them")
        if self.region is not None:
            parse_region(self.region)
        if not self.photometric:
            return
        if self.survey == TABLE:
            raise BadInput("--photometric with --survey table: leave it out; a table without z_spec is photometric")
        if self.region is None and self.moc is None:
            raise BadInput("--photometric: expected --region or --moc, to say which part of the sky")

    def _check_survey(self) -> None:
        survey = survey_named(self.survey, also=(TABLE,))
        chosen = self.selection or next(iter(survey.selections))
        if chosen not in survey.selections:
            close = did_you_mean(chosen, survey.selections)
            raise BadInput(f"--selection {chosen!r}: expected one of {', '.join(survey.selections)}{close}")
        if self.photometric and chosen not in survey.photometric_selections:
            without = " or ".join(survey.photometric_selections)
            if not without:
                raise BadInput(f"--photometric: {survey.name} has no sample that can be selected without spectra")
            raise BadInput(
                f"--photometric with --selection {chosen}: only {without} can be selected without spectra; "
                f"expected --selection {without}"
            )

    def _check_table(self) -> None:
        if self.table is None:
            raise BadInput("--survey table: expected --table FILE (CSV, Parquet, FITS or VOTable)")
        if self.survey_url is not None:
            raise BadInput("--survey-url with --survey table: a table asks no server; leave it out")
        parse_columns(self.columns)
