"""JSON files as Python objects, and messages for what is none."""

import hashlib
import json
from pathlib import Path
from typing import Any

from det_coco.errors import DataError

# Python's own bound, above which it refuses to read a whole number.
_MOST_DIGITS = 4300


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
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not JSON: byte {error.start} is not UTF-8 text.") from None
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(error.doc.rstrip()) - 1 or "Unterminated" in error.msg
        end = "it ends too early, so it is probably truncated" if at_end else error.msg
        raise DataError(
            f"{file} is not valid JSON: {end} (line {error.lineno}, column {error.colno}, character {error.pos} of "
            f"{len(error.doc)}). Copy or export the file again."
        ) from None
    except RecursionError:
        raise DataError(f"{file} is not a COCO annotation file: its JSON is nested too deeply.") from None
    except ValueError:
        raise DataError(
            f"{file} is not a COCO annotation file: it holds a number of more than {_MOST_DIGITS:,} digits."
        ) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    doubled = Doubled(made)
    names = [name for name, _ in pairs]
    doubled.keys_twice = frozenset(name for name in made if names.count(name) > 1)
    return doubled
