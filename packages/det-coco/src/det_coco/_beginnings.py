"""What a file is that is not what it should be, by its first bytes, and what to do about it."""

from pathlib import Path

# A part of a sentence after "is", and the rest of it.
_AT_THE_START: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a pointer of Git LFS; run `git lfs pull` in its repository"),
    (b"<!doctype", "a web page, so its download failed; download it again"),
    (b"<html", "a web page, so its download failed; download it again"),
    (b"\x1f\x8b", "compressed by gzip; unpack it (gunzip)"),
    (b"BZh", "compressed by bzip2; unpack it (bunzip2)"),
    (b"\xfd7zXZ\x00", "compressed by xz; unpack it (unxz)"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it (unzstd)"),
    (b"PK\x03\x04", "a zip archive; unpack it"),
    (b"PK\x05\x06", "a zip archive without any file; download it again"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it"),
    (b"%PDF", "a PDF file"),
    (b"SQLite format 3\x00", "an SQLite database; export it"),
    (b"PAR1", "a Parquet file; export it"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file; export it"),
    (b"\x93NUMPY", "an array of NumPy"),
)
_LONGEST = 300
_TAR = 257, b"ustar"


def beginning_of(file: Path) -> str | None:
    """Name what a file is by its first bytes; see `recognised`. None also where it cannot be read."""
    try:
        with file.open("rb") as opened:
            return recognised(opened.read(_LONGEST))
    except OSError:
        return None


def recognised(data: bytes) -> str | None:
    """Name what begins with some bytes.

    Args:
        data: the first bytes of a file, 300 or more where it has them.

    Returns:
        what the file is and mostly what to do, as a part of a sentence after "is"; None where it is nothing known.
    """
    if not data.strip(b"\0 \t\r\n"):
        return "empty; copy or download it again" if not data.strip() else "all zeros; copy or download it again"
    if data[_TAR[0] :].startswith(_TAR[1]):
        return "a tar archive; unpack it"
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((what for begin, what in _AT_THE_START if start.startswith(begin.lower())), None)
