"""Flags, their environment variables and their defaults, read off the jobs' settings dataclasses."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields
from typing import Annotated, Any, Literal, get_type_hints

import typer

from photoz import runtime
from photoz.artifacts import Artifact, Destination, Ref, load, open_store, parse_duration
from photoz.artifacts.refs import check_name
from photoz.settings import setting

DEFAULT_NAME = "mgs"


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What every job takes, whatever it does."""

    store: str = setting("./photoz-store", "Object store: s3://bucket/prefix, file:///folder or a path.", metavar="URL")
    name: str | None = setting(None, "Name of the artifact written (default: the input's name, or mgs).")
    wait: str = setting("0", "How long to wait for an input that does not exist yet: 90s, 15m, 2h.", metavar="TIME")
    task: int | None = setting(None, "Do slice TASK of TASKS, from 0 (a Slurm array or Kubernetes index sets it too).")
    tasks: int | None = setting(None, "Number of slices that the job is cut into.")
    force: bool = setting(False, "Make a new version even if one with the same inputs and settings exists.")
    log_format: Literal["text", "json"] = setting("text", "Log lines on stderr.")

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name)
        parse_duration(self.wait)
        runtime.task_slice(self.task, self.tasks)

    def ref(self, kind: str, given: str | None) -> Ref:
        """The ref that was given, or the one that goes by this job's name."""
        return Ref.parse(given or f"{kind}/{self.name or DEFAULT_NAME}", kind=kind)

    def input(self, kind: str, given: str | None) -> Artifact:
        """Load the input that was named, or the one that goes by this job's name, waiting as long as asked."""
        return load(open_store(self.store), self.ref(kind, given), parse_duration(self.wait))

    def destination(self, made_from: Artifact | None = None) -> Destination:
        """Where this job writes: under its own name, else its input's."""
        name = self.name or (made_from.ref.name if made_from else DEFAULT_NAME)
        return Destination(open_store(self.store), name, runtime.task_slice(self.task, self.tasks), self.force)


def flag(name: str, help_text: str, **options: Any) -> Any:
    """A typer option `--name`, which PHOTOZ_NAME sets too."""
    variable = "PHOTOZ_" + name.upper().replace("-", "_")
    return typer.Option(f"--{name}", envvar=variable, help=help_text, **options)


def takes(**groups: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag for each field of the dataclasses, and hand it one built instance of each.

    A field that several of them share becomes one flag, whose value goes to each.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        own = [p.replace(annotation=hints[p.name]) for p in _parameters(command) if p.name not in groups]
        flags = {p.name: p for group in reversed(groups.values()) for p in _flags(group)}
        ordered = [p for group in groups.values() for p in _flags(group) if flags.pop(p.name, None)]

        def run_command(**values: Any) -> None:
            built = {name: group(**{f.name: values[f.name] for f in fields(group)}) for name, group in groups.items()}
            command(**{p.name: values[p.name] for p in own}, **built)

        run_command.__name__, run_command.__doc__ = command.__name__, command.__doc__
        run_command.__signature__ = inspect.Signature([*own, *ordered])  # type: ignore[attr-defined]
        run_command.__annotations__ = {p.name: p.annotation for p in [*own, *ordered]}
        return run_command

    return decorate


def _parameters(command: Callable[..., None]) -> list[inspect.Parameter]:
    return [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in inspect.signature(command).parameters.values()]


def _flags(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group)
    panel = "Options of every job" if group is JobOptions else "Settings"
    return [_flag_of(spec, hints[spec.name], panel) for spec in fields(group)]


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected a number") from None


# Typer's own messages for these do not name the value.
WHOLE: dict[str, Any] = {"parser": _whole_number, "metavar": "N"}
_REAL: dict[str, Any] = {"parser": _number, "metavar": "X"}
_NUMBERS: dict[str, dict[str, Any]] = {
    str(hint): options
    for options, hints in ((WHOLE, (int, int | None)), (_REAL, (float, float | None)))
    for hint in hints
}


def _flag_of(spec: Field[Any], hint: Any, panel: str) -> inspect.Parameter:
    metadata = _NUMBERS.get(str(hint), {}) | dict(spec.metadata)
    option = flag(spec.name.replace("_", "-"), metadata.pop("help", ""), rich_help_panel=panel, **metadata)
    if spec.default is MISSING:
        raise TypeError(f"settings field {spec.name!r} needs a default: its flag is read off it")
    return inspect.Parameter(
        spec.name, inspect.Parameter.KEYWORD_ONLY, default=spec.default, annotation=Annotated[hint, option]
    )
