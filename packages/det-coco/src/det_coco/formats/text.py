"""Reading text files line by line."""

from pathlib import Path

from det_coco.errors import DataError


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Read the lines of a text file that are not empty.

    Args:
        file: UTF-8 text, with or without a byte order mark.

    Returns:
        number, from 1, and text of each, without the spaces around it.

    Raises:
        DataError: the file cannot be read, or is no text.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from None
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))
    return [(number, line) for number, line in lines if line]
