"""Flags, their environment variables and their defaults, read off the jobs' settings dataclasses."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from photoz import runtime
from photoz.artifacts.refs import Ref, check_name
from photoz.errors import BadInput
from photoz.settings import parse_duration, setting

if TYPE_CHECKING:
    from photoz.artifacts import Artifact, Destination

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
        from photoz.artifacts import load, open_store  # with pyarrow, which takes long to import

        return load(open_store(self.store), self.ref(kind, given), parse_duration(self.wait))

    def destination(self, made_from: Artifact | None = None) -> Destination:
        """Where this job writes: under its own name, else its input's."""
        from photoz.artifacts import Destination, open_store

        name = self.name or (made_from.ref.name if made_from else DEFAULT_NAME)
        return Destination(open_store(self.store), name, runtime.task_slice(self.task, self.tasks), self.force)


def flag(name: str, help_text: str, **options: Any) -> Any:
    """A typer option `--name`, which PHOTOZ_NAME sets too."""
    variable = "PHOTOZ_" + name.upper().replace("-", "_")
    return typer.Option(f"--{name}", envvar=variable, help=help_text, **options)


def takes(
    *,
    shared: Collection[str] = (),
    renamed: Mapping[tuple[str, str], str] = MappingProxyType({}),
    fixed: Collection[tuple[str, str]] = (),
    **groups: type,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag for each field of the dataclasses, and pass it one built instance of each.

    A field that several of them have becomes one flag, whose value goes to each, if it is named in `shared`.
    `renamed` gives a (group, field) another name, and one in `fixed` keeps its default. Raises TypeError for two fields
    of one name that are none of these: they may not mean the same.
    """
    names = {
        (group, spec.name): renamed.get((group, spec.name), spec.name)
        for group, settings in groups.items()
        for spec in fields(settings)
        if (group, spec.name) not in fixed
    }
    counts = Counter(names.values())
    if merged := [name for name, count in counts.items() if count > 1 and name not in shared]:
        raise TypeError(f"several settings have a field {merged[0]!r}: share it, rename it or fix it")

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        own = [p.replace(annotation=hints[p.name]) for p in _parameters(command) if p.name not in groups]
        flags: dict[str, inspect.Parameter] = {}
        for group, settings in groups.items():
            for spec, hint in zip(fields(settings), _hints(settings), strict=True):
                if name := names.get((group, spec.name)):
                    flags.setdefault(name, _flag_of(name, spec, hint, _panel(settings)))

        def run_command(**values: Any) -> None:
            built: dict[str, Any] = {}
            for group, settings in groups.items():
                own_names = {field: name for (of, field), name in names.items() if of == group}
                with naming(own_names):
                    built[group] = settings(**{field: values[name] for field, name in own_names.items()})
            command(**{p.name: values[p.name] for p in own}, **built)

        run_command.__name__, run_command.__doc__ = command.__name__, command.__doc__
        run_command.__signature__ = inspect.Signature([*own, *flags.values()])  # type: ignore[attr-defined]
        run_command.__annotations__ = {p.name: p.annotation for p in [*own, *flags.values()]}
        return run_command

    return decorate


@contextmanager
def naming(names: Mapping[str, str]) -> Iterator[None]:
    """Let a BadInput about the flags of settings name those that the user can give: {field: name of its flag}."""
    try:
        yield
    except BadInput as error:
        message = str(error)
        for field, name in names.items():
            if field != name:
                message = re.sub(rf"--{_dashed(field)}(?![\w-])", f"--{_dashed(name)}", message)
        error.args = (message,)
        raise


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _parameters(command: Callable[..., None]) -> list[inspect.Parameter]:
    return [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in inspect.signature(command).parameters.values()]


def _hints(group: type) -> list[Any]:
    hints = get_type_hints(group)
    return [hints[spec.name] for spec in fields(group)]


def _panel(group: type) -> str:
    return "Options of every job" if group is JobOptions else "Settings"


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


def _flag_of(name: str, spec: Field[Any], hint: Any, panel: str) -> inspect.Parameter:
    metadata = _NUMBERS.get(str(hint), {}) | dict(spec.metadata)
    option = flag(_dashed(name), metadata.pop("help", ""), rich_help_panel=panel, **metadata)
    if spec.default is MISSING:
        raise TypeError(f"settings field {spec.name!r} needs a default: its flag is read off it")
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=spec.default, annotation=Annotated[hint, option]
    )
