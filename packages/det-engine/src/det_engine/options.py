"""Typed options over a default dataclass: their names, their values on a command line, and a help page by section.

tyro does the reading and the printing; it comes with `det-engine[cli]`.
"""

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from types import ModuleType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from det_engine.cli import UsageError, nearest, print_pairs, unknown
from det_engine.complaints import sentence
from det_engine.errors import EngineError

T = TypeVar("T")
_GENERAL = "general"


@dataclasses.dataclass(frozen=True)
class _Option:
    """A field that is an option: `--solver.base-lr` of section `solver`, whose class says what it is about."""

    name: str
    section: str
    kind: type
    hint: Any
    aliases: tuple[str, ...]


def override(
    default: T,
    args: Sequence[str],
    prog: str,
    description: str | None = None,
    first: Sequence[str] = (),
    habits: Mapping[str, str] | None = None,
) -> T:
    """A copy of the dataclass `default` with the fields that `args` name replaced.

    Nested dataclasses make dotted options: `--solver.base-lr 0.01`. Tuples take several values, optional fields take
    `None`, booleans take `True` or `False`, or stand alone for `True`. A field's metadata may give it shorter names:
    `field(default=1, metadata={"aliases": ("--batch",)})`. `--help` prints the options with the values of `default`
    and exits: all of them, or those of `first` and the names of the sections, which `--help SECTION` prints.

    Args:
        default: a dataclass instance, such as a recipe.
        args: options.
        prog: program name, for help and messages.
        description: text above the options in the help.
        first: options that the help begins with, such as `--solver.steps`; empty: all.
        habits: what to say about options that other programs have, such as `{"--lr": "it is --solver.base-lr"}`.

    Raises:
        UsageError: an option does not exist (names the nearest), or a value does not fit.
        EngineError: tyro is not installed.
        SystemExit: after the help.
    """
    options = list(_options(default))
    positional = any(_tyro().conf.Positional in marks for _, _, marks in _fields(default))
    args = _spelt_out(args, options, positional=positional)
    for flag in ("--help", "-h"):
        if flag in args:
            following = args[args.index(flag) + 1 :]
            topic = following[0] if following and not following[0].startswith("-") else None
            _print_help(default, options, prog, description, topic, first)
            raise SystemExit(0)
    complaints = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaints):
            result, rest = _tyro_cli(default, args, prog, description)
    except SystemExit as error:
        if not error.code:
            raise
        # Who misspells a required option has also left it out; the spelling is what helps.
        names = [option.name for option in options]
        misspelt = next((a for a in args if a.startswith("--") and _name(a) not in names), None)
        if misspelt is not None:
            raise _unknown_option(misspelt, names, prog, habits) from None
        hints = {option.name: option.hint for option in options}
        raise UsageError(f"{sentence(complaints.getvalue(), args, hints, prog)} See {prog} --help.") from None
    if not rest:
        return result
    wrong = next((argument for argument in rest if argument.startswith("-")), None)
    if wrong is None:
        raise UsageError(f"Unexpected argument {rest[0]!r}. Options begin with --; see {prog} --help.")
    raise _unknown_option(wrong, [option.name for option in options], prog, habits)


def option_names(default: Any) -> list[str]:
    """The options that `override` takes for the dataclass instance `default`, section by section."""
    return [option.name for option in _options(default)]


def named_options(args: Sequence[str]) -> set[str]:
    """The options that arguments name, spelt with hyphens."""
    return {_name(argument) for argument in args if argument.startswith("--")}


def keep_explicit(fitted: T, parsed: T, prefix: str, args: Sequence[str]) -> T:
    """The dataclass `fitted`, but with the fields that `args` name, `--PREFIX.steps`, as they are in `parsed`."""
    explicit = named_options(args)
    names = [field.name for field in dataclasses.fields(fitted)]  # type: ignore[arg-type]
    chosen = [name for name in names if f"--{prefix}.{name.replace('_', '-')}" in explicit]
    return dataclasses.replace(fitted, **{name: getattr(parsed, name) for name in chosen})  # type: ignore[type-var]


def _options(value: Any, prefix: str = "") -> Iterator[_Option]:
    """The options of a dataclass instance, its own before those of its sections."""
    tyro, sections = _tyro(), []
    for field, hint, marks in _fields(value):
        current = getattr(value, field.name)
        if not field.init or tyro.conf.Suppress in marks or tyro.conf.Positional in marks:
            continue
        if dataclasses.is_dataclass(current):
            sections.append((current, prefix + _part(field.name, marks)))
        elif not (current is None and any(map(dataclasses.is_dataclass, get_args(hint)))):
            aliases = tuple(field.metadata.get("aliases", ()))
            flag = _flag(prefix, field, marks)
            for name in _names(flag, hint, current):
                own = hint if name == flag else get_args(hint)[0]
                yield _Option(name, prefix.rstrip(".") or _GENERAL, type(value), own, aliases)
    for current, inner in sections:
        yield from _options(current, inner)


def _fields(value: Any) -> Iterator[tuple[dataclasses.Field[Any], Any, tuple[Any, ...]]]:
    """Each field with its type and what `Annotated` adds to that."""
    hints = get_type_hints(type(value), include_extras=True)
    for field in dataclasses.fields(value):
        marks = getattr(hints[field.name], "__metadata__", ())
        yield field, get_args(hints[field.name])[0] if marks else hints[field.name], marks


def _flag(prefix: str, field: dataclasses.Field[Any], marks: tuple[Any, ...]) -> str:
    """The option of a field, called as `tyro.conf.arg(name=...)` says, if it does."""
    given = next((name for name in (getattr(mark, "name", None) for mark in marks) if name), field.name)
    return f"--{prefix}{given}".replace("_", "-")


def _help_texts(kind: type) -> dict[str, str]:
    """What the fields of a dataclass are, each on one line: tyro keeps the line breaks of strings behind fields."""
    import docstring_parser

    parsed = [docstring_parser.parse_from_object(each).params for each in reversed(kind.__mro__[:-1])]
    described = {param.arg_name: param.description for params in parsed for param in params if param.description}
    return {name: _plain(text) for name, text in described.items()}


def _plain(text: str) -> str:
    """A docstring's text on one line, without the marks of reStructuredText."""
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", " ".join(text.split())).replace("``", "`")


def _names(name: str, hint: Any, current: Any) -> list[str]:
    """The option of a field, or several where it holds tuples of any length: `--sizes.0`, `--sizes.1`."""
    inner = get_args(hint)[0] if get_origin(hint) is tuple else None
    if get_origin(inner) is tuple and Ellipsis in get_args(inner):
        return [f"{name}.{number}" for number in range(len(current))]
    return [name]


def _part(name: str, marks: tuple[Any, ...]) -> str:
    """What a section adds to the names of its options: nothing where `tyro.conf.arg(name="")` says so."""
    return "" if any(getattr(mark, "name", None) == "" for mark in marks) else f"{name}."


def _spelt_out(args: Sequence[str], options: list[_Option], *, positional: bool) -> list[str]:
    """The arguments with full names in place of aliases, and `True` after a truth value that is named alone."""
    full = {alias: option.name for option in options for alias in option.aliases}
    truths = {option.name for option in options if option.hint is bool}
    spelt = []
    for argument, following in pairwise([*args, "--"]):
        name, equals, value = argument.partition("=")
        spelt.append(full.get(name.replace("_", "-"), name) + equals + value)
        # What follows may be a misspelt value, unless there are arguments without a name.
        alone = following.startswith("--") or (positional and following not in ("True", "False"))
        if _name(spelt[-1]) in truths and not equals and alone:
            spelt.append("True")
    return spelt


def _print_help(
    default: Any,
    options: list[_Option],
    prog: str,
    description: str | None,
    topic: str | None,
    first: Sequence[str],
) -> None:
    sections = list(dict.fromkeys(option.section for option in options))
    if topic not in (None, "all", *sections):
        raise unknown("section", str(topic), ["all", *sections])
    within = [o.name for o in options if o.section == topic or o.section.startswith(f"{topic}.")]
    everything = [option.name for option in options]
    shown = {None: first or everything, "all": everything}.get(topic, within)
    with contextlib.suppress(SystemExit):
        _tyro_cli(_showing(default, set(shown)), ["--help"], prog, description)
    if first and topic is None:
        print(f"\nAll {len(options)} options: --help SECTION shows a section, --help all everything.")
        width = max(map(len, sections))
        counted = [(section, [o for o in options if o.section == section]) for section in sections]
        print_pairs(
            [(f"{section:<{width}}  {len(own):>3}", _about(section, own[0].kind)) for section, own in counted],
            indent="  ",
        )


def _about(section: str, kind: type) -> str:
    """What the options of a section are about."""
    return "" if section == _GENERAL else _plain((kind.__doc__ or "").strip().partition("\n")[0])


def _showing(value: Any, names: set[str], prefix: str = "") -> Any:
    """`value` as an instance of a class in which all options but `names` are hidden from the help."""
    tyro, kinds, values = _tyro(), {}, {}
    help_texts = _help_texts(type(value))
    for field, hint, marks in _fields(value):
        current = getattr(value, field.name)
        if field.name in help_texts:
            marks = (*marks, tyro.conf.arg(help=help_texts[field.name]))
        if dataclasses.is_dataclass(current):
            inner = prefix + _part(field.name, marks)
            if any(name.startswith(f"--{inner}".replace("_", "-")) for name in names):
                current = _showing(current, names, inner)
                hint = type(current)
            else:
                # None in its place saves tyro a third of its work.
                hint, current, marks = type(None), None, (*marks, tyro.conf.Suppress)
        elif tyro.conf.Positional not in marks and not names.issuperset(
            _names(_flag(prefix, field, marks), hint, current)
        ):
            marks = (*marks, tyro.conf.Suppress)
        kinds[field.name] = Annotated[(hint, *marks)] if marks else hint
        values[field.name] = current
    kind = type(value)
    frozen = kind.__dataclass_params__.frozen
    namespace = {"__doc__": kind.__doc__, "__module__": kind.__module__}
    shown = dataclasses.make_dataclass(
        kind.__name__, list(kinds.items()), bases=(kind,), frozen=frozen, kw_only=True, namespace=namespace
    )
    # Its own checks have been made, and need not like a class of this kind.
    result = object.__new__(shown)
    for name, current in values.items():
        object.__setattr__(result, name, current)
    return result


def _tyro() -> ModuleType:
    try:
        import tyro
    except ImportError:
        raise EngineError(
            "Command-line options are read by tyro, which is not installed: pip install 'det-engine[cli]'."
        ) from None
    return tyro


def _tyro_cli(default: T, args: list[str], prog: str, description: str | None) -> tuple[T, list[str]]:
    tyro = _tyro()
    return tyro.cli(
        type(default),
        default=default,
        args=args,
        prog=prog,
        description=description,
        return_unknown_args=True,
        config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
    )


def _name(argument: str) -> str:
    """The option of `--name` or `--name=value`, spelt with hyphens."""
    return argument.partition("=")[0].replace("_", "-")


def _unknown_option(argument: str, names: Sequence[str], prog: str, habits: Mapping[str, str] | None) -> UsageError:
    name = argument.partition("=")[0]
    known = (habits or {}).get(_name(argument).lower())
    if known is not None:
        return UsageError(f"There is no option {name}: {known}. See {prog} --help.")
    near = nearest(name, names)
    return UsageError(f"Unknown option {name}.{f' Did you mean {near}?' if near else ''} See {prog} --help.")
