"""What all commands have in common: what may be given how often, and whether a flag or a variable said it."""

import logging
import re
from contextlib import suppress
from typing import Any

import typer
from typer import BadParameter
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.exceptions import TyperException

from jobs import last_words, logs
from jobs.options import DEFAULT_NAME
from photoz import runtime
from photoz.artifacts.refs import Ref
from photoz.errors import BadInput, did_you_mean

log = logging.getLogger("photoz.settings")

# What each job makes, and the flag of the input that names it.
_MAKES = {
    "catalog": ("catalog", ""),
    "shard": ("shards", "catalog"),
    "train": ("model", "shards"),
    "infer": ("predictions", "shards"),
    "evaluate": ("report", "predictions"),
    "run": ("report", ""),
}


class UsageMistake(TyperException):
    """A command line that can't be meant; its message is shown as it is."""

    exit_code = 2


class JobGroup(TyperGroup):
    """A group of commands; the outermost one sees the whole command line first."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """See the base class."""
        if ctx.parent is None:
            last_words.speak_of(args)
        try:
            return super().parse_args(ctx, args)
        except TyperException as error:
            if not error.format_message():  # the help has been printed
                raise UsageMistake(f"missing command: expected one of {', '.join(self.commands)}") from None
            raise _plain(error, ctx, self) from None

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """See the base class."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            close = did_you_mean(args[0], self.commands)
            raise UsageMistake(f"no command {args[0]!r}: expected one of {', '.join(self.commands)}{close}")
        return super().resolve_command(ctx, args)


class JobCommand(TyperCommand):
    """A command that takes each flag once and says where a value that it can't use came from."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """See the base class."""
        last_words.add(job=_path(ctx))
        try:
            given = self._given(ctx, args)
            _tell_slice_and_ref(self, given)
            self._refuse_repeats(given)
            return super().parse_args(ctx, args)
        except TyperException as error:
            raise _plain(error, ctx, self) from None

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """See the base class."""
        runtime.check_current_folder()
        logs.set_up(ctx.params.get("log_format", "text"))
        _warn_of_unknown_variables(ctx)
        try:
            return super().invoke(ctx)
        except BadInput as error:
            error.args = (_by_variables(str(error), _from_variables(self, ctx)),)
            raise

    def _given(self, ctx: typer.Context, args: list[str]) -> dict[str, Any]:
        """By parameter, all values that the command line has for it, as they are written."""
        parser: Any = self.make_parser(ctx)
        for option in [*parser._long_opt.values(), *parser._short_opt.values()]:
            if option.action == "store":
                option.action = "append"
        return dict(parser.parse_args(list(args))[0])

    def _refuse_repeats(self, given: dict[str, Any]) -> None:
        for param in self.params:
            values = given.get(param.name)
            if isinstance(param, TyperOption) and not param.multiple and isinstance(values, list) and len(values) > 1:
                found = ", ".join(map(repr, values))
                raise UsageMistake(f"{param.opts[0]}: given {len(values)} times ({found}); expected one value")


def _path(ctx: typer.Context) -> str:
    """`train`, or `artifacts ls`."""
    names: list[str] = []
    at: Any = ctx
    while at.parent is not None:
        names.insert(0, at.info_name)
        at = at.parent
    return " ".join(names)


def _tell_slice_and_ref(command: JobCommand, given: dict[str, Any]) -> None:
    """Let the last words name the slice and the ref, as far as they can be known before the job starts."""

    def value(name: str) -> str | None:
        values = given.get(name)
        found = values[-1] if isinstance(values, list) else values
        return found or runtime.variable(f"PHOTOZ_{name.upper()}") or None

    names = {param.name for param in command.params}
    with suppress(BadInput, ValueError):
        if "tasks" in names:
            task, tasks = (None if text is None else int(text) for text in (value("task"), value("tasks")))
            piece = runtime.task_slice(task, tasks)
            last_words.add(task=piece.index, tasks=piece.count)
    with suppress(BadInput):
        if command.name in _MAKES and "name" in names:
            kind, source = _MAKES[command.name]
            named_by = value(source) if source else None
            source_name = Ref.parse(named_by, source).name if named_by else DEFAULT_NAME
            last_words.add(ref=str(Ref(kind, value("name") or source_name)))
        elif "ref" in names and given.get("ref"):
            last_words.add(ref=str(Ref.parse(given["ref"])))


def _plain(error: TyperException, ctx: typer.Context, command: JobCommand | JobGroup) -> TyperException:
    """The same mistake in our own words, where Typer's hide who gave the value or what is close to it."""
    if hasattr(error, "possibilities"):  # its NoSuchOption
        name = str(error.option_name)  # type: ignore[attr-defined]
        flags = [flag for param in command.params for flag in param.opts if flag.startswith("--")]
        see = " ".join(filter(None, ("photoz-job", _path(ctx), "--help")))
        return UsageMistake(f"no flag {name}{did_you_mean(name, flags, '--') or f'; see {see}'}")
    if not isinstance(error, BadParameter) or error.param is None or not error.message:
        return error
    param: Any = error.param
    expected = error.message
    choices = param.type_descriptor.choices
    wrong = re.search(r"(?s)'(.*)' is not one of ", expected)
    if choices and wrong:
        expected = f"{wrong[1]!r}: expected one of {', '.join(choices)}{did_you_mean(wrong[1], choices)}"
    variable = _from_variables(command, ctx).get(param.opts[0])
    subject = f"{variable}=" if variable else f"{param.opts[0]} "
    return UsageMistake(f"{subject}{expected}" if expected.startswith("'") else f"{subject.strip(' =')}: {expected}")


def _from_variables(command: JobCommand | JobGroup, ctx: typer.Context) -> dict[str, str]:
    """Flags whose value came from a variable, and its name."""
    sources = {param: ctx.get_parameter_source(param.name) for param in command.params}
    return {
        param.opts[0]: str(param.envvar)
        for param, source in sources.items()
        if source is not None and source.name == "ENVIRONMENT"
    }


def _by_variables(message: str, variables: dict[str, str]) -> str:
    """A message about flags, with the variables in their place that the values came from."""
    for flag, variable in variables.items():
        value = runtime.variable(variable)
        written = rf"{flag} ({re.escape(value)}|{re.escape(repr(value))})(?=[:;,\s]|$)"
        message = re.sub(written, rf"{variable}=\1", message)
        subject, colon, rest = message.partition(": ")
        subject = re.sub(rf"{flag}(?![\w-])", variable, subject)
        if re.fullmatch(rf"(?:(?:ref|store|model|duration|artifact name) )?{re.escape(repr(value))}", subject):
            subject = f"{variable}: {subject}"
        message = subject + colon + rest
    return message


def _warn_of_unknown_variables(ctx: typer.Context) -> None:
    known = {*_variables(ctx.find_root().command), *runtime.OWN_VARIABLES}
    for name in runtime.unknown_variables(known):
        close = did_you_mean(name, known, "PHOTOZ_")
        log.warning("%s is set, but nothing reads a variable of that name%s", name, close)


def _variables(command: Any) -> list[str]:
    """Variables of all flags of a command and of those below it."""
    own = [str(param.envvar) for param in command.params if param.envvar]
    return own + [name for sub in getattr(command, "commands", {}).values() for name in _variables(sub)]


def install(app: typer.Typer) -> None:
    """Make every command of the app, and of the groups in it, a JobCommand."""
    app.info.cls = JobGroup
    for command in app.registered_commands:
        command.cls = JobCommand
    for group in app.registered_groups:
        assert group.typer_instance is not None
        install(group.typer_instance)
