"""Fonts for class names in any script."""

import importlib.util
import logging
import os
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import ImageFont, features

_log = logging.getLogger("det_coco")

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_FOLDERS = (
    "/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts",
    "/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts",
    "$WINDIR/Fonts", "$LOCALAPPDATA/Microsoft/Windows/Fonts",
)  # fmt: skip
_SUFFIXES = frozenset({".ttf", ".otf", ".ttc"})
# What makes a font less legible in a small label than the plain one beside it.
_VARIANTS = ("bold", "italic", "oblique", "light", "thin", "black", "condensed", "mono", "serif", "math", "emoji")
_ASCII = "Aaz09.()-_"
_NO_CHARACTER = "\uffff"


def font_for(text: str, size: int) -> Font | None:
    """Find a font that shows a text: Pillow's own, one of the system's, or one of those that matplotlib brings.

    Args:
        text: what to write.
        size: in pixels.

    Returns:
        the font; None where no font has all characters, or where Pillow cannot lay them out (Arabic, Hebrew and Indic
        scripts need its libraqm).
    """
    # ASCII is looked for in any case, so that a name with another number beside it is no new search.
    characters = frozenset(c for c in text if not c.isascii() and unicodedata.category(c) not in ("Cf", "Mn", "Zs"))
    needs_layout = any(
        unicodedata.bidirectional(c) in ("R", "AL") or unicodedata.category(c) in ("Mn", "Mc") for c in text
    )
    if needs_layout and not (features.check("raqm") and features.check("fribidi")):
        return None
    file = _file_for(characters)
    return None if file is None else _load(file, size)


@lru_cache(maxsize=1024)
def legible(name: str, substitute: str) -> str:
    """Give a name, or a substitute (and a warning, once) where no font shows the name.

    Args:
        name: a class name.
        substitute: a text that every font shows.

    Returns:
        one of the two.
    """
    if font_for(name, 12) is not None:
        return name
    _log.warning(
        "No font of this system shows the class name %r; pictures say %r instead. Install a font for its script, for "
        "example one of the Noto fonts.",
        name, substitute,
    )  # fmt: skip
    return substitute


@lru_cache(maxsize=1024)
def _file_for(characters: frozenset[str]) -> str | None:
    """Find a font file with these characters and ASCII; empty text stands for Pillow's own font."""
    for file in ("", *_files()):
        try:
            font = _load(file, 12)
            missing = _shape(font, _NO_CHARACTER)
            latin = {_shape(font, character) for character in _ASCII}
            # A font of last resort has one shape for all characters of a script.
            if len(latin | {missing}) > len(_ASCII) and all(_shape(font, c) != missing for c in characters):
                return file
        except (OSError, ValueError):  # A broken file, or Pillow's bitmap font, which has Latin letters alone.
            continue
    return None


def _shape(font: Font, character: str) -> Any:
    mask: Any = font.getmask(character)
    return mask.size, bytes(mask)


@lru_cache(maxsize=1)
def _files() -> tuple[str, ...]:
    def key(path: Path) -> tuple[int, str]:
        return sum(variant in path.stem.lower() for variant in _VARIANTS), path.stem

    return tuple(str(file) for folder in _folders() for file in sorted(_fonts_below(folder), key=key))


def _folders() -> Iterator[Path]:
    for folder in _FOLDERS:
        yield Path(os.path.expandvars(folder)).expanduser()
    matplotlib = importlib.util.find_spec("matplotlib")
    if matplotlib is not None and matplotlib.origin is not None:
        yield Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf"


def _fonts_below(folder: Path) -> list[Path]:
    try:
        return [file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES]
    except OSError:
        return []


@lru_cache(maxsize=64)
def _load(file: str, size: int) -> Font:
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)
