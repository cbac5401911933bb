"""JSON files as Python objects, and messages for what is none."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from det_coco._beginnings import recognised
from det_coco.errors import DataError

# Python's own bound, above which it refuses to read a whole number.
_MOST_DIGITS = 4300
# What is left of a value that is cut off, behind the place where reading it fails.
_BROKEN_OFF = re.compile(r"(t(ru?)?|f(a(ls?)?)?|n(ul?)?|-|\.|[eE][+-]?)?")
_AGAIN = "Copy or export the file again."


class Doubled(dict[str, Any]):
    """An object in which keys appear twice; it has the last value of each.

    Attributes:
        keys_twice: these keys.
    """

    keys_twice: frozenset[str]


class FileText:
    """The bytes of an annotation file, which are large: they are given out once, and then kept by nobody else.

    Args:
        file: the file.

    Raises:
        DataError: it is not there or cannot be read.
    """

    DIGITS = 64

    def __init__(self, file: Path) -> None:
        try:
            self._text = file.read_bytes()
        except FileNotFoundError:
            raise DataError(f"The annotation file {file} does not exist.") from None
        except OSError as error:
            raise DataError(f"The annotation file {file} cannot be read: {error.strerror or error}.") from None

    def digest(self, salt: str) -> str:
        """Digest the text and a salt: `DIGITS` hexadecimal digits."""
        digest = hashlib.sha256(salt.encode())
        digest.update(self._text)
        return digest.hexdigest()

    def take(self) -> bytes:
        """Give the text out."""
        text, self._text = self._text, b""
        return text


def read_json(file: Path) -> Any:
    """Read a JSON file; see `FileText` and `parse_json`."""
    return parse_json(file, FileText(file).take())


def parse_json(file: Path, text: bytes) -> Any:
    """Turn JSON into Python objects; an object in which a key appears twice becomes a `Doubled`.

    Args:
        file: named in messages.
        text: its content.

    Raises:
        DataError: it is no JSON; says where.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise not_json(file, text, error) from None


def not_json(file: Path, text: bytes, error: ValueError | RecursionError) -> DataError:
    """Say why a text is no JSON, and what to do.

    Args:
        file: named in the message.
        text: its content.
        error: what `json.loads` has raised.

    Returns:
        the error to raise.
    """
    what = recognised(text[:300])
    if what is not None:
        return DataError(f"{file} is {what}.")
    if isinstance(error, UnicodeDecodeError):
        return DataError(f"{file} is not JSON: byte {error.start} is not UTF-8 text. Save it as UTF-8.")
    if isinstance(error, json.JSONDecodeError):
        place = f"line {error.lineno}, column {error.colno}, character {error.pos} of {len(error.doc)}"
        before, rest = error.doc[max(0, error.pos - 16) : error.pos], error.doc[error.pos : error.pos + 16]
        reason, remedy = _reason(error.msg, before.rstrip(), rest.strip())
        return DataError(f"{file} is not valid JSON: {reason} ({place}). {remedy}")
    if isinstance(error, RecursionError):
        return DataError(f"{file} cannot be read: its JSON is nested too deeply.")
    return DataError(f"{file} cannot be read: it holds a number of more than {_MOST_DIGITS:,} digits.")


def _reason(message: str, before: str, after: str) -> tuple[str, str]:
    """What is wrong between two pieces of a text, and what to do about it, for whoever did not write it by hand."""
    if message == "Extra data":
        several = "it holds several values one after the other, as JSON Lines does"
        return (several if after[:1] in ("{", "[") else "it goes on after its end"), "Write it as one object."
    if after.startswith(("//", "/*", "#")):
        return "it has a comment, which JSON does not know", "Remove all comments."
    if "trailing comma" in message or (before.endswith(",") and after[:1] in ("]", "}")):
        return "it has a comma before a closing bracket", "Remove the comma."
    if after.startswith(("'", "True", "False", "None", "nan")):
        return "it is in Python's notation", "Write it with json.dump."
    if "Unterminated" in message or _BROKEN_OFF.fullmatch(after):
        return "it ends too early, so it is probably truncated", _AGAIN
    return message, _AGAIN


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    doubled = Doubled(made)
    names = [name for name, _ in pairs]
    doubled.keys_twice = frozenset(name for name in made if names.count(name) > 1)
    return doubled
