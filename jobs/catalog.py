"""photoz-job catalog"""

from jobs.options import JobOptions, takes
from jobs.session import run_job
from photoz.catalog import CatalogSettings, build_catalog

EPILOG = """
[bold]Examples[/bold]

photoz-job catalog --survey embedded --limit 2000

photoz-job catalog --survey sdss-dr17 --selection mgs --limit 100000

photoz-job catalog --survey sdss-dr17 --photometric --region "cone 184.5 12.3 1.5" --name virgo

photoz-job catalog --survey table --table my.csv --columns mag_r=FLUX_R:nmgy --where "zconf >= 2" --name mine
"""


@takes(settings=CatalogSettings, options=JobOptions)
def catalog(settings: CatalogSettings, options: JobOptions) -> None:
    """Make a clean, split catalogue of galaxies, from a survey or from your own table.

    Each cut and the rows it left are recorded. Splits into train, val and test go by cells of sky, so that no
    galaxy and no neighbour of one crosses a split.
    """
    run_job(options, lambda: build_catalog(settings, options.destination()))
