"""Links and pictures of built pages that lead nowhere, without network."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SOURCES = {"a": "href", "area": "href", "img": "src", "link": "href", "script": "src", "source": "src"}


class _Page(HTMLParser):
    """What a page refers to, and what can be referred to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.names.update(value for name in ("id", "name") if (value := values.get(name)))
        if (link := values.get(_SOURCES.get(tag, ""))) is not None:
            self.links.append(link)


def dead_links(folder: Path) -> list[str]:
    """Links within a folder of HTML whose file or place in it is missing, and all that are loaded from elsewhere.

    Args:
        folder: Of the built pages; links to other hosts are not followed.

    Returns:
        A line for each, with the page that has it.
    """
    pages = {path: _Page(path) for path in folder.rglob("*.html") if path.name != "404.html"}
    return sorted(
        f"{path.relative_to(folder)}: {link} leads nowhere"
        for path, page in pages.items()
        for link in page.links
        if not _leads(link, path, folder, pages)
    )


def _leads(link: str, path: Path, folder: Path, pages: dict[Path, _Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    file = unquote(parts.path)
    target = folder / file.lstrip("/") if file.startswith("/") else path.parent / file
    target = (path if not file else target).resolve()
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return False
    place = unquote(parts.fragment)
    return not place or target not in pages or place in pages[target].names or place.startswith("__")
