"""Reading XML with the lines that things stand in, from files that nobody vouches for."""

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from det_coco._describe import some
from det_coco.errors import DataError


class Node(Element):
    """An element that knows its line, from 1."""

    line = 0


def read_xml(file: Path) -> Node:
    """Read an XML file.

    Entities of its own are refused: they are how a small file fills the memory, and how it reads others.

    Args:
        file: the file.

    Returns:
        the outermost element.

    Raises:
        DataError: the file is missing, is no XML, or declares entities; says where.
    """
    parser = expat.ParserCreate()

    def make(tag: str, attributes: dict[Any, Any]) -> Node:
        node = Node(tag, attributes)
        node.line = parser.CurrentLineNumber
        return node

    def refuse(name: str, *_: Any) -> None:
        raise DataError(f"{file}, line {parser.CurrentLineNumber} declares an entity ({some([name])}); remove it.")

    builder = TreeBuilder(element_factory=make)
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse
    parser.buffer_text = True
    try:
        with file.open("rb") as stream:
            parser.ParseFile(stream)
    except FileNotFoundError:
        raise DataError(f"The annotation file {file} does not exist.") from None
    except DataError:
        raise
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise DataError(f"{file} is not valid XML: {error}. Copy or export the file again.") from None
    node = builder.close()
    assert isinstance(node, Node)
    return node


def outermost_tag(file: Path) -> str | None:
    """Name the outermost element of an XML file, without reading the rest; None where it is no XML.

    Args:
        file: the file.
    """
    parser = expat.ParserCreate()
    tags: list[str] = []
    parser.StartElementHandler = lambda tag, _: tags.append(tag)
    try:
        with file.open("rb") as stream:
            while not tags and (part := stream.read(1 << 12)):
                parser.Parse(part)
    except (OSError, expat.ExpatError, ValueError, LookupError):
        pass
    return tags[0] if tags else None


def text_of(name: str, node: Element, tag: str) -> str:
    """Read the text of an element within another.

    Args:
        name: what messages call the outer one.
        node: the outer one.
        tag: of the inner one.

    Returns:
        its text, without the spaces around it.

    Raises:
        DataError: it is not there, or is empty.
    """
    text = (node.findtext(tag) or "").strip()
    if not text:
        raise DataError(f"{name} has no <{tag}>.")
    return text


def number(name: str, what: str, text: str | None) -> float:
    """Read a finite number.

    Args:
        name: what messages call the element.
        what: what they call the number.
        text: the number as it is written; None where it is missing.

    Returns:
        the number.

    Raises:
        DataError: it is none.
    """
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise DataError(f"{name}: '{what}' must be a number, got {'nothing' if text is None else repr(text[:40])}.")
    return value
