"""What a caller did wrong."""

import operator
from typing import Any


class CheckpointError(ValueError):
    """A checkpoint that does not fit: of an unknown system, or of another architecture than the model."""


class OptionError(ValueError):
    """A value that this detector cannot be given, or an image that is none; the message says what to give instead."""


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """The value of an argument that counts something, of any type of integers.

    Raises:
        OptionError: It is no whole number, or smaller than `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise OptionError(f"{name} must be a whole number, got {value!r}.") from None
    if number < least:
        raise OptionError(f"{name} must be at least {least}, got {number}.")
    return number


def missing_extra(extra: str, what: str) -> OptionError:
    """The error for a library that is not installed, which an extra of the package brings.

    Args:
        extra: Its name.
        what: It does, such as `writes ONNX`.
    """
    return OptionError(f"What {what} is not installed: pip install 'det-models[{extra}]'.")
