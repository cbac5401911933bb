"""The pages of the site: those of docs/, the read-mes in their places, and what is made of other files."""

import ast
import os
import re
import shutil
from pathlib import Path

from charts import benchmark_chart, graph

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("det-ops", "det-backbones", "det-heads", "det-models", "det-coco", "det-engine")
APPS = ("mask_rcnn", "faster_rcnn", "cascade_rcnn", "retinanet", "yolact")

PLACES = {
    **{f"docs/{path.relative_to(ROOT / 'docs').as_posix()}": path.relative_to(ROOT / "docs").as_posix()
       for path in sorted((ROOT / "docs").rglob("*.md"))},
    **{f"packages/{name}/README.md": f"parts/{name}.md" for name in PACKAGES},
    **{f"apps/{name}/README.md": f"apps/{name}.md" for name in APPS},
    "packages/det-ops/ADDING.md": "adding.md",
    "benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "findings": "findings.md",
}  # fmt: skip
"""Where pages of the repository are on the site; links to its read-me lead to the first page."""

_LINK = re.compile(r"(!?)\[([^\]]+)\]\(([^()\s]+)\)")

_MADE = re.compile(r"<!-- (!\[[^\]]*\]\(([^)]*)\).*?) -->", flags=re.DOTALL)
"""A picture that the build makes, with its caption, so that the repository's own page has a comment in its place."""


def assemble(folder: Path, pictures: Path) -> None:
    """Write all pages into a folder, with links among them.

    Args:
        folder: New.
        pictures: What was drawn for them.
    """
    for source, place in PLACES.items():
        if source in ("README.md", "findings"):
            continue
        text = _with_pictures((ROOT / source).read_text(encoding="utf-8"), pictures)
        _write(folder / place, _linked(text, source, place))
    chart = benchmark_chart(ROOT / "benchmarks" / "results.jsonl")
    _write(folder / "pictures" / "benchmarks.svg", chart)
    _insert(folder / "benchmarks.md", _CHART)
    page = folder / "architecture.md"
    text = page.read_text(encoding="utf-8")
    _write(folder / "pictures" / "house.svg", graph(text))
    page.write_text(re.sub(r"```mermaid.*?```", _HOUSE, text, flags=re.DOTALL), encoding="utf-8")
    if (pictures / "report.html").exists():
        _insert(folder / "report.md", _RUN)
    _write(folder / "findings.md", findings_page(ROOT / "findings"))
    for script in sorted((ROOT / "findings").glob("*.sh")):
        shutil.copy(script, _made(folder / "findings") / script.name)
    for name in PACKAGES:
        _write(folder / "api" / f"{_module(name)}.md", api_page(name))
    shutil.copytree(pictures, folder / "pictures", dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.md"))
    shutil.copy(Path(__file__).with_name("site.css"), folder)


_CHART = """
![Our seconds beside those of the peer](pictures/benchmarks.svg)

The bars show the newest rows of `benchmarks/results.jsonl`.
"""

_HOUSE = "![The packages, from apps at the top to those that import no other at the bottom](pictures/house.svg)"

_RUN = """
![Losses and AP of that training over its steps](pictures/curves.png)

This documentation was built after a training on the embedded scenes: [its report](pictures/report.html).
"""


def _with_pictures(text: str, pictures: Path) -> str:
    """A page with the pictures that were drawn, and with what was written of some: `<!-- x -->` stands for `x.md`."""
    text = _MADE.sub(lambda made: made[1] if (pictures / Path(made[2]).name).exists() else "", text)
    for written in sorted(pictures.glob("*.md")):
        text = text.replace(f"<!-- {written.stem} -->", written.read_text(encoding="utf-8"))
    return text


def _insert(page: Path, text: str) -> None:
    """Put a text before the first section of a page."""
    page.write_text(page.read_text(encoding="utf-8").replace("\n## ", f"{text}\n## ", 1), encoding="utf-8")


def _linked(text: str, source: str, place: str) -> str:
    """A page with its links as they are on the site; what is not there is named without a link."""
    here = (ROOT / source).parent

    def link(found: re.Match[str]) -> str:
        label, target = found[2], found[3]
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        file, hash_, anchor = target.partition("#")
        path = os.path.relpath((here / file).resolve(), ROOT).replace(os.sep, "/")
        there = path.removeprefix("docs/") if found[1] else PLACES.get(path) or PLACES.get(f"{path}/README.md")
        if there is None:
            if not (ROOT / path).exists():
                raise SystemExit(f"{source} links to {target}, which is not there.")
            return label
        return f"{found[1]}[{label}]({os.path.relpath(there, Path(place).parent).replace(os.sep, '/')}{hash_}{anchor})"

    parts = re.split(r"(^```.*?^```)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def with_whole_options(html: str) -> str:
    """A page with each `--option` in running text as an element, which site.css keeps on one line."""
    return re.sub(
        r"(?<!<span></span>)<code>[^<]*</code>",
        lambda code: re.sub(r"--[a-z][\w.-]*", r'<span class="option">\g<0></span>', code[0]),
        html,
    )


def api_page(package: str) -> str:
    """The public names of a package, for mkdocstrings to fill in."""
    module = _module(package)
    tree = ast.parse((ROOT / "packages" / package / "src" / module / "__init__.py").read_text(encoding="utf-8"))
    names = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
    )
    members = "".join(f"        - {name}\n" for name in names if name != "__version__")
    symbols = "The [glossary](../glossary.md) explains symbols in shapes, such as `B` and `N`."
    return f"# {module}\n\n{symbols}\n\n::: {module}\n    options:\n      members:\n{members}"


def findings_page(folder: Path) -> str:
    """An index of the scripts: their first lines say it all."""
    parts = [
        "# Findings",
        "This page collects surprises about other libraries and formats. Each has a script that reproduces it with "
        "public packages only, in a temporary folder, and that ends with status 1 once the finding has changed.",
    ]
    for script in sorted(folder.glob("*.sh")):
        lines = script.read_text(encoding="utf-8").splitlines()[1:]
        comment = [
            line.removeprefix("#").strip()
            for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
        ]
        versions, *paragraphs = "\n".join(comment).split("\n\n")
        title = script.stem.replace("-", " ")
        parts += [
            f"## {title[0].upper()}{title[1:]}",
            f"*{versions}* · [{script.name}](findings/{script.name})",
            *paragraphs,
        ]
    return "\n\n".join(parts) + "\n"


def _module(package: str) -> str:
    return package.replace("-", "_")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(path: Path, text: str) -> None:
    _made(path.parent)
    path.write_text(text, encoding="utf-8")
