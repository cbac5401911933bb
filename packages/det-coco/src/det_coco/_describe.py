"""Words for values in messages, which never quote a file at length."""

from collections.abc import Iterable
from typing import Any

_LONGEST = 80
_KINDS = {
    dict: "an object", list: "a list", tuple: "a list", str: "a text", int: "a number", float: "a number",
    bool: "a truth value", type(None): "null",
}  # fmt: skip


def kind(value: Any) -> str:
    """Name what JSON calls a value: `a list`, `an object`, ..."""
    return _KINDS.get(type(value), f"a value of type {type(value).__name__}")


def describe(value: Any) -> str:
    """Quote a short value, and name the form of a long one: `a list of 20,000 numbers`."""
    if isinstance(value, list | tuple) and len(value) > 8:
        kinds = {kind(item) for item in value}
        what = kinds.pop().split(" ", 1)[1] + "s" if len(kinds) == 1 else "values of different kinds"
        return f"a list of {len(value):,} {what}"
    if isinstance(value, dict):
        return "an object with " + (f"the keys {some(value, 8)}" if value else "no key")
    return _cut(repr(value))


def some(values: Iterable[Any], limit: int = 5) -> str:
    """List the first of some values, each cut to a readable length."""
    values = list(values)
    shown = [_cut(str(value)) for value in values[:limit]]
    return ", ".join(shown) + (", ..." if len(values) > limit else "")


def _cut(text: str) -> str:
    """Cut a text to a readable length, with halves of surrogate pairs as they are escaped."""
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    return text.encode("utf-8", "backslashreplace").decode()


def counted(count: int, noun: str) -> str:
    """Count a noun: `1 box`, `1,204 boxes`."""
    return f"{count:,} {_of_number(noun, count)}"


def named(noun: str, values: Iterable[Any], limit: int = 5) -> str:
    """Name things by the first of their ids: `annotation 7`, `annotations 1, 2, ...`."""
    values = list(values)
    return f"{_of_number(noun, len(values))} {some(values, limit)}"


def _of_number(noun: str, count: int) -> str:
    plural = noun + ("es" if noun.endswith(("x", "s", "ch")) else "s")
    return noun if count == 1 else plural
