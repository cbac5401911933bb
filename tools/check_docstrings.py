"""Check what the docstrings of the packages say: what a thing is, its shapes, its arguments, and what it raises.

    hatch run python tools/check_docstrings.py [PACKAGE ...]

Prints a table of the share of public functions, classes and methods in which each holds, and fails where a share is
below the floor that `[tool.docstrings]` in pyproject.toml sets for the package. What falls short is listed for the
packages that are named, and for those that fail.

Ruff judges arguments, exceptions and full stops. What it has no rule for is judged here: that a docstring begins with
a verb or a noun phrase, and that it states shapes where tensors or arrays go in or come out: `[B, N, 4]`, "scalar",
"any shape", "the same shape". A mapping of tensors by name is left out, since a page describes it (docs/batch.md).
"""

import argparse
import ast
import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

ROOT = Path(__file__).resolve().parent.parent
# Rule: the column it counts in.
RUFF = {
    **dict.fromkeys(("D101", "D102", "D103", "D400", "D404"), "summary"),
    **dict.fromkeys(("D417", "DOC102"), "arguments"),
    "DOC501": "raises",
}
COLUMNS = ("summary", "shapes", "arguments", "raises")

# What begins a clause or a sentence about something else: pronouns, prepositions, conjunctions, auxiliary verbs.
CLAUSES = re.compile(
    r"(?:after|and|as|at|be|because|before|but|by|can|does|during|for|from|has|have|if|in|into|is|it|like|of|on|or|since|"
    r"so|that|there|these|they|this|those|to|under|until|we|when|where|which|while|with|within|without|you)\b",
    re.IGNORECASE,
)
SHAPE = re.compile(
    r"(?:(?<![\w\]])|(?<=Tensor))\[(?!')(?=[^\]]*(?:[A-Z]|\.\.\.|\bh, w\b)|\d+\]|(?<=`\[)\d+(?:, \d+)+\]`)"
    r"[\w.*+/×()' -]+(?:, ?[\w.*+/×()' -]+)*,?\]"
)
SHAPE_IN_WORDS = re.compile(r"\bscalars?\b|\b(?:any|the same|equal|its|whose|of the) shapes?\b")
ARRAYS = frozenset(("Tensor", "ndarray", "NDArray"))
# Folders of definitions and kernels: their arguments are those of the operator, which states the shapes.
INTERNAL = frozenset(("backends", "reference"))
BY_NAME = frozenset(("Callable", "Mapping", "MutableMapping", "OrderedDict", "dict"))


@dataclass
class Definition:
    """A public function, class or method.

    Attributes:
        place: file and line.
        name: with that of its class.
        lines: of its first line and its docstring, where Ruff puts what it finds.
        counts: the columns that it counts in.
        faults: column and what falls short.
    """

    place: str
    name: str
    lines: range
    counts: set[str]
    faults: list[tuple[str, str]] = field(default_factory=list)


Node = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public_nodes(package: Path) -> Iterator[tuple[Path, str, Node]]:
    """Files, names and syntax trees: no underscore in the way, or exported by an `__init__.py` all the same."""
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(package.rglob("*.py"))}
    exported = {
        (node.module, alias.name)
        for file, tree in trees.items()
        if file.name == "__init__.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for file, tree in trees.items():
        parts = file.relative_to(package).with_suffix("").parts
        private = any((part.startswith("_") and part != "__init__") or part in INTERNAL for part in parts)
        module = ".".join((package.name, *parts))
        for node in tree.body:
            if _is_public(node) and (not private or (module, node.name) in exported):
                yield file, node.name, node
                members = node.body if isinstance(node, ast.ClassDef) else []
                yield from ((file, f"{node.name}.{member.name}", member) for member in members if _is_public(member))


def _is_public(node: ast.stmt) -> TypeGuard[Node]:
    """Whether it is a definition for users, and the one of its name that carries the docstring."""
    if not isinstance(node, Node) or node.name.startswith("_"):
        return False
    decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    return not decorators & {"overload", "setter", "deleter"}


def look_at(file: Path, name: str, node: Node) -> Definition:
    """A definition with what this program finds by itself."""
    text = ast.get_docstring(node) or ""
    end = node.body[0].end_lineno if text else node.lineno
    counts = {"summary"}
    counts |= {"shapes"} if _arrays(node) else set()
    counts |= {"arguments"} if re.search(r"^Args:$", text, flags=re.MULTILINE) else set()
    counts |= {"raises"} if re.search(r"^Raises:$", text, flags=re.MULTILINE) else set()
    place = f"{file.relative_to(ROOT)}:{node.lineno}"
    found = Definition(place, name, range(node.lineno, (end or 0) + 1), counts)
    if text and (fault := fault_of_summary(text)):
        found.faults.append(("summary", fault))
    if fault := fault_of_shapes(node, text):
        found.faults.append(("shapes", fault))
    return found


def fault_of_summary(text: str) -> str | None:
    """What is wrong with how a docstring begins, None if nothing."""
    first = text.split(maxsplit=1)[0]
    if CLAUSES.match(text):
        return f"begins with {first!r}: begin with a verb or a noun phrase"
    if first[:1].islower():
        return f"begins with {first!r}: begin with a capital letter"
    return None


def fault_of_shapes(node: Node, text: str) -> str | None:
    """Which arrays have no shape, None if all have one.

    That of an argument stands in its entry of `Args:` where it has one, and anywhere otherwise; that of the result
    anywhere but in `Args:`.
    """
    entries = _arguments(text)
    rest = text[: text.find("\nArgs:\n")] + text[text.find("\nReturns:\n") :] if entries else text
    missing = [name for name in _arrays(node) if not _states_shape(entries.get(name, text if name else rest))]
    if not missing:
        return None
    return f"states no shape of {', '.join(name or 'the result' for name in missing)}"


def _states_shape(text: str) -> bool:
    return bool(SHAPE.search(text) or SHAPE_IN_WORDS.search(text))


def _arguments(text: str) -> dict[str, str]:
    """The entries of the sections `Args:` and `Attributes:` by name."""
    entries, section, name = {}, False, ""
    for line in text.splitlines():
        if line and not line.startswith(" "):
            section = line in ("Args:", "Attributes:")
        elif section and (match := re.match(r" {4}\*{0,2}(\w+)(?: \(.*?\))?:", line)):
            name = match[1]
            entries[name] = line[match.end() :]
        elif section and name:
            entries[name] += line
    return entries


def _arrays(node: Node) -> list[str]:
    """Names of the arguments or fields that are tensors or arrays; an empty one for the result."""
    if isinstance(node, ast.ClassDef):
        fields = (item for item in node.body if isinstance(item, ast.AnnAssign))
        hints = [(ast.unparse(item.target), item.annotation) for item in fields]
    else:
        every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg)
        hints = [*((argument.arg, argument.annotation) for argument in every if argument), ("", node.returns)]
    return [name for name, hint in hints if hint is not None and not name.startswith("_") and _mentions_arrays(hint)]


def _mentions_arrays(hint: ast.expr) -> bool:
    if isinstance(hint, ast.Constant) and isinstance(hint.value, str):
        hint = ast.parse(hint.value, mode="eval").body
    name = getattr(hint, "id", None) or getattr(hint, "attr", None)
    if isinstance(hint, ast.Subscript) and ast.unparse(hint.value).rpartition(".")[2] == "Literal":
        return False
    if isinstance(hint, ast.Subscript) and ast.unparse(hint.value).rpartition(".")[2] in BY_NAME:
        return False
    below = (child for child in ast.iter_child_nodes(hint) if isinstance(child, ast.expr))
    return name in ARRAYS or any(map(_mentions_arrays, below))


BUILT = re.compile(r"exception `[a-z_]+`")
"""The error that a function makes: its class stands in the docstring, its maker does not."""


def add_ruffs(definitions: list[Definition], folder: Path) -> None:
    """Adds what Ruff finds; what belongs to no public definition is dropped."""
    command = ["ruff", "check", "--preview", "--exit-zero", "--output-format=json", "--select", ",".join(RUFF), folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    at: dict[str, list[Definition]] = defaultdict(list)
    for definition in definitions:
        at[definition.place.rpartition(":")[0]].append(definition)
    for finding in json.loads(done.stdout):
        file, row = str(Path(finding["filename"]).relative_to(ROOT)), finding["location"]["row"]
        column = RUFF[finding["code"]]
        if BUILT.search(finding["message"]):
            continue
        for definition in at[file]:
            if row in definition.lines:
                definition.counts.add(column)
                definition.faults.append((column, finding["message"]))


def share(definitions: list[Definition], column: str) -> float:
    """Per cent of those which count in a column that have no fault there; 100 where none counts."""
    counted = [definition for definition in definitions if column in definition.counts]
    good = [definition for definition in counted if all(place != column for place, _ in definition.faults)]
    return 100 * len(good) / len(counted) if counted else 100.0


def main() -> int:
    """Status of the command: 1 if a share is below its floor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    packages = sorted((ROOT / "packages").glob("det-*"))
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="list all that falls short in these")
    named = parser.parse_args().packages
    if unknown := set(named) - {package.name for package in packages}:
        parser.error(f"there is no package {', '.join(sorted(unknown))}")
    floors = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["docstrings"]
    failed = False
    print(f"{'docstrings':15}{'public':>8}" + "".join(f"{column:>16}" for column in COLUMNS))
    for package in packages:
        (source,) = (package / "src").iterdir()
        definitions = [look_at(*found) for found in public_nodes(source)]
        add_ruffs(definitions, source)
        cells, below = "", set()
        for column in COLUMNS:
            value, floor = share(definitions, column), floors.get(package.name, {}).get(column, 100)
            below |= {column} if value < floor else set()
            cells += f"{f'{int(value)} %' + (f' (not {floor})' if value < floor else ''):>16}"
        print(f"{package.name:15}{len(definitions):8}{cells}")
        failed |= bool(below)
        for definition in definitions:
            for column, fault in definition.faults:
                if package.name in named or column in below:
                    print(f"{definition.place}: {definition.name} {column}: {fault}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
