"""Name the repository in a package's metadata: `python tools/add_urls.py det-heads https://example.org/owner/det`.

A release does so before it builds, with the address that it is built from, so that a fork's packages name the fork.
"""

import argparse
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def urls(package: str, repository: str) -> str:
    """The table of addresses for a package's pyproject.toml."""
    inside = f"{repository.rstrip('/')}/blob/main/packages/{package}"
    lines = {
        "Source": repository.rstrip("/"),
        "Documentation": f"{inside}/README.md",
        "Changelog": f"{inside}/CHANGELOG.md",
        "Issues": f"{repository.rstrip('/')}/issues",
    }
    return "\n[project.urls]\n" + "".join(f'{name} = "{address}"\n' for name, address in lines.items())


def main() -> None:
    """Append the table, unless there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package")
    parser.add_argument("repository")
    parser.add_argument("--root", type=Path, default=ROOT)
    options = parser.parse_args()
    file = options.root / "packages" / options.package / "pyproject.toml"
    text = file.read_text(encoding="utf-8")
    if "[project.urls]" not in text:
        file.write_text(text + urls(options.package, options.repository), encoding="utf-8")


if __name__ == "__main__":
    main()
