"""photoz-job sky: the embedded sky as a server of its own."""

from typing import Annotated

import typer

from jobs import logs
from jobs.options import WHOLE, flag
from photoz.sky import DEFAULT_GALAXIES, serve
from photoz.sky.faults import KINDS

app = typer.Typer(name="sky", no_args_is_help=True, help="The simulated sky that --survey embedded asks.")

_FAULTS = f"Faults and their rates, such as 429:0.05,reset:0.01; kinds: {', '.join(KINDS)}."
EPILOG = """
[bold]Examples[/bold]

photoz-job sky serve --port 8080

photoz-job sky serve --galaxies 200000 --faults "429:0.05,reset:0.01"

photoz-job catalog --survey embedded --survey-url http://127.0.0.1:8080     (in another terminal)
"""


@app.callback()
def _sky() -> None:
    """Keeps `serve` a command of its own: Typer would fold a single command into its group."""


@app.command("serve", epilog=EPILOG)
def serve_sky(
    port: Annotated[int, flag("port", "Port to listen on; 0 takes a free one.", **WHOLE)] = 8080,
    host: Annotated[str, flag("host", "Address to listen on.")] = "127.0.0.1",
    galaxies: Annotated[int, flag("galaxies", "Spectroscopic galaxies on this sky.", **WHOLE)] = DEFAULT_GALAXIES,
    seed: Annotated[
        int, flag("seed", "Seed of everything that is not measured: shapes, neighbours, noise.", **WHOLE)
    ] = 0,
    faults: Annotated[str, flag("faults", _FAULTS)] = "",
) -> None:
    """Serve a simulated SDSS SkyServer (SQL and image cutouts) until interrupted.

    10,000 real SDSS galaxies, at their positions and measured fluxes; their images are drawn, not observed.
    Prints its address as one line of JSON when it is ready.
    """
    logs.set_up("text")
    serve(host=host, port=port, galaxies=galaxies, seed=seed, faults=faults)
