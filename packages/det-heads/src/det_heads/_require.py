"""Checks of configurations."""


def require(condition: bool, name: str, expected: str, got: object) -> None:
    """Refuse a value of a configuration's field.

    Raises:
        ValueError: The condition does not hold; the message names the field.
    """
    if not condition:
        raise ValueError(f"{name} must be {expected}, got {got!r}")
