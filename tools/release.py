"""Make a package ready for a release: `hatch run release det-heads 0.2.0`.

It sets the version, collects the fragments of changelog.d into CHANGELOG.md, and moves the ranges in which siblings
take the package. What is left is to read the difference, and to commit and tag it: a tag starts the workflow.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def main() -> int:
    """Do so; 2 if a release cannot be made, with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="hatch run release", description=__doc__)
    parser.add_argument("package", choices=sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml")))
    parser.add_argument("version", help="the new one, three numbers")
    parser.add_argument("--root", type=Path, default=ROOT, help="of the repository (default: this one)")
    options = parser.parse_args()
    try:
        release(options.root, options.package, options.version)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    tag = f"{options.package}-v{options.version}"
    print(f"Read it with git diff, then: git commit -am 'Release {tag}' && git tag {tag} && git push origin HEAD {tag}")
    return 0


def release(root: Path, package: str, version: str) -> None:
    """Set the version of a package, and write its changelog and the ranges of those that need it.

    Args:
        root: of the repository.
        package: such as `det-heads`.
        version: three numbers, larger than those of now.

    Raises:
        ValueError: it is no such version, or nothing has changed.
    """
    folder = root / "packages" / package
    about = folder / "src" / package.replace("-", "_") / "__about__.py"
    now = _VERSION.findall(about.read_text(encoding="utf-8"))[0]
    if not _VERSION.fullmatch(version):
        raise ValueError(f"A version is three numbers with dots between them, such as 0.2.0, got {version}.")
    if _numbers(version) <= _numbers(now) and (version != now or _changelog_has(folder, version)):
        raise ValueError(f"{package} is at {now} already; {version} is not larger.")
    if not list((folder / "changelog.d").glob("*.md")):
        raise ValueError(f"packages/{package}/changelog.d has no fragment, so that there is nothing to release.")
    towncrier = [sys.executable, "-m", "towncrier", "build", "--yes", "--version", version]
    subprocess.run([*towncrier, "--config", folder / "pyproject.toml", "--dir", folder], check=True)
    about.write_text(f'__version__ = "{version}"\n', encoding="utf-8")
    for file in root.glob("packages/*/pyproject.toml"):
        text = file.read_text(encoding="utf-8")
        moved = re.sub(rf'("{package}(?:\[\w+\])?)>=[\d.]+,<[\d.]+"', rf'\1{allowed(version)}"', text)
        file.write_text(moved, encoding="utf-8")


def allowed(version: str) -> str:
    """The range in which siblings take a package of a version: up to the next second number."""
    first, second, _ = _numbers(version)
    return f">={first}.{second},<{first}.{second + 1}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _changelog_has(folder: Path, version: str) -> bool:
    """Whether a version was released, which the one that a package begins with was not."""
    return f" {version} (" in (folder / "CHANGELOG.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
