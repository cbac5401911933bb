"""tyro's complaints about a command line, in sentences that name the option and what it takes."""

import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

_WORDS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("True or False", "times True or False"),
    str: ("a text", "texts"),
    Path: ("a path", "paths"),
    type(None): ("None", "times None"),
}
_OF_AN_OPTION = re.compile(
    r"(?:error parsing|missing value for argument|invalid choice .* for argument) '?(--[\w.-]+)", re.IGNORECASE
)
_MISSING = re.compile(r"Missing from .*?: (--[\w.-]+|[A-Z]+)", re.IGNORECASE)
_OF_A_CLASS = re.compile(r"Error parsing ([\w.-]+): (\w[\w.]*) (.*)", re.IGNORECASE)


def sentence(box: str, args: Sequence[str], hints: Mapping[str, Any], prog: str) -> str:
    """What tyro says in a box, as one sentence.

    Args:
        box: its message, drawn with lines or, where the output has none, dashes.
        args: the options as they were given.
        hints: type by option, such as `--solver.base-lr`.
        prog: program name.
    """
    text = _text(box)
    if (found := _OF_AN_OPTION.match(text)) and found[1] in hints:
        return f"Option {found[1]} takes {takes(hints[found[1]])}, got {_given(found[1], hints[found[1]], args)}."
    if found := _MISSING.match(text):
        what = f"Option {found[1]}" if found[1].startswith("--") else found[1]
        return f"{what} is missing, without which {prog} cannot begin."
    if found := _OF_A_CLASS.match(text):
        within, field, rest = found.groups()
        name = _named(within.split("."), field, hints)
        text = f"{field} {rest}" if name is None else f"Option {name} {rest}"
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def takes(hint: Any) -> str:
    """What an option of a type takes, in words: `a number or None`, `2 whole numbers`."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (Union, types.UnionType):
        return " or ".join(map(takes, inner))
    if origin is tuple and inner:
        several = f"values, each {takes(inner[0])}" if inner[0] not in _WORDS else _WORDS[inner[0]][1]
        return several if Ellipsis in inner else f"{len(inner)} {several}"
    return _WORDS[hint][0] if hint in _WORDS else "a value of another kind"


def _named(sections: list[str], field: str, hints: Mapping[str, Any]) -> str | None:
    """The option of a field of some section, which the message may name from an inner or an outer section on."""
    count = len(sections)
    parts = [sections[begin:end] for begin in range(count + 1) for end in range(count, begin - 1, -1)]
    names = ("--" + ".".join([*part, field]).replace("_", "-") for part in parts)
    return next((name for name in names if name in hints), None)


def _given(name: str, hint: Any, args: Sequence[str]) -> str:
    """The values of an option, as they were typed; of the last where it was given several times."""
    several = get_args(hint) if get_origin(hint) is tuple else (hint,)
    most = len(args) if Ellipsis in several else len(several)  # what follows belongs to no option
    values: list[str] = []
    taking = False
    for argument in args:
        flag, equals, value = argument.partition("=")
        if flag.startswith("--"):
            taking = flag.replace("_", "-") == name
            values = ([value] if equals else []) if taking else values
        elif taking:
            values.append(argument)
    return repr(" ".join(values[:most])) if values else "nothing"


def _text(box: str) -> str:
    """The message inside the box, in one line."""
    lines = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    sections: list[list[str]] = [[]]
    for line in lines:
        if re.fullmatch("─+|-+", line):
            sections.append([])
        elif line:
            sections[-1].append(line)
    # In a box of lines the title is part of the border, in one of dashes it is a section of its own.
    message = sections[0] if "╭" in box or len(sections) == 1 else sections[1]
    return " ".join(message)
