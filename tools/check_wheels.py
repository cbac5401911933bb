"""Build the five packages and install each wheel alone into a clean environment, then import it.

Each wheel is built from its source distribution, so that one lacks nothing either, and must hold the licence and the
marker of type hints. A wheel may pull in only what it declares: siblings come from the same build, everything else from
the index. The import test also checks that a package brings no undeclared sibling with it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIBLINGS = {
    "det-ops": set(),
    "det-backbones": set(),
    "det-heads": {"det_ops"},
    "det-coco": set(),
    "det-engine": set(),
}
PROBE = """
import importlib.util, sys
own, *declared = sys.argv[1:]
module = __import__(own)
others = {"det_ops", "det_backbones", "det_heads", "det_coco", "det_engine"} - {own, *declared}
present = sorted(name for name in others if importlib.util.find_spec(name))
assert not present, f"{own} brought {present}, which it does not declare"
for name in module.__all__:
    getattr(module, name)
print(f"{own} {module.__version__}: {len(module.__all__)} public names")
"""


def run(*command: str | Path) -> None:
    environment = {**os.environ, "UV_CONSTRAINT": str(ROOT / "constraints.txt")}
    environment.pop("PYTHONPATH", None)
    subprocess.run([str(part) for part in command], check=True, env=environment, cwd=tempfile.gettempdir())


def check_contents(wheels: Path, module: str) -> None:
    (wheel,) = wheels.glob(f"{module}-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for end in (f"{module}/py.typed", ".dist-info/licenses/LICENSE"):
        if not any(name.endswith(end) for name in names):
            sys.exit(f"{wheel.name} lacks {end}")
    if foreign := {name.split("/")[0] for name in names if not name.startswith((f"{module}/", f"{module}-"))}:
        sys.exit(f"{wheel.name} would install {', '.join(sorted(foreign))} beside {module}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", default=list(SIBLINGS), help="default: all five")
    packages = parser.parse_args().packages
    with tempfile.TemporaryDirectory() as temporary:
        wheels, environment = Path(temporary) / "wheels", Path(temporary) / "environment"
        for package in SIBLINGS:
            run("uv", "build", "-q", "--out-dir", wheels, ROOT / "packages" / package)
            check_contents(wheels, package.replace("-", "_"))
        for package in packages:
            run("uv", "venv", "-q", "--clear", "--python", sys.executable, environment)
            python = environment / "bin" / "python"
            run("uv", "pip", "install", "-q", "--python", python, "--find-links", wheels, package)
            run(python, "-I", "-c", PROBE, package.replace("-", "_"), *sorted(SIBLINGS[package]))


if __name__ == "__main__":
    main()
