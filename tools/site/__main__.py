"""`hatch run docs`: the documentation as a folder of HTML, which any warning or dead link stops.

Zensical builds it: the successor of Material for MkDocs by the same authors. Material's own end is announced for May
2027, and MkDocs, on which it stands, has had no release since 2024. Docstrings are read without importing anything, so
that the environment needs no PyTorch; what needs it, the pictures, was drawn before (pictures.py).
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from links import dead_links
from pages import ROOT, assemble, with_whole_options

BUILD = ROOT / "build" / "site"


def main() -> int:
    """Assemble the pages, build them, and look for links that lead nowhere."""
    parser = argparse.ArgumentParser(prog="hatch run docs", description=__doc__)
    parser.parse_args()
    for folder in ("docs", "html", ".cache"):
        shutil.rmtree(BUILD / folder, ignore_errors=True)
    assemble(BUILD / "docs", pictures=BUILD / "pictures")
    shutil.copy(Path(__file__).with_name("zensical.toml"), BUILD)
    zensical = Path(sys.executable).with_name("zensical")
    ended = subprocess.run([zensical, "build", "--clean", "--strict", "-f", BUILD / "zensical.toml"], check=False)
    if ended.returncode:
        return 1
    for page in (BUILD / "html").rglob("*.html"):
        text = with_whole_options(page.read_text(encoding="utf-8"))
        if page.parent.name == "zh":  # browsers choose the forms of characters by it
            text = text.replace('<html lang="en"', '<html lang="zh-CN"', 1)
        page.write_text(text, encoding="utf-8")
    dead = dead_links(BUILD / "html")
    for place in dead:
        print(place)
    if dead:
        return 1
    print(f"The site: {BUILD / 'html' / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
