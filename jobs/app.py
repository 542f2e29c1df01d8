"""photoz-job: the one program, assembled from its commands."""

import typer

import photoz
from jobs import artifacts, catalog, doctor, evaluate, infer, run, shard, sky, train
from jobs.command_line import install

EPILOG = """
[bold]Start here[/bold]

photoz-job run --survey embedded     everything, on a simulated sky, without network

photoz-job doctor     what this machine has, what is missing and what to do

Jobs meet only in the store: each reads named artifacts (catalog/mgs@v3, or catalog/mgs for the latest) and
writes one new version. Every flag can be given as a variable, PHOTOZ_ and its name: PHOTOZ_STORE=s3://bucket/x.
"""

app = typer.Typer(
    name="photoz-job",
    help="Photometric redshifts from images of galaxies, as batch jobs over an object store.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        print(f"photoz {photoz.__version__}")
        raise typer.Exit


for _module, _command in (
    (catalog, catalog.catalog),
    (shard, shard.shard),
    (train, train.train),
    (infer, infer.infer),
    (evaluate, evaluate.evaluate),
    (run, run.run),
):
    app.command(_command.__name__, epilog=_module.EPILOG)(_command)
app.add_typer(artifacts.app)
app.add_typer(sky.app)
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)
install(app)
