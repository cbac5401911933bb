"""Build all packages and install each by its name, from an index on this machine, into a clean environment.

Each wheel is built from its source distribution, so that one lacks nothing either, and must hold the licence and the
marker of type hints; twine checks both as the public index does. A package may pull in only what it declares: siblings
come from the same build, everything else from the usual index. The import test also checks that a package brings no
undeclared sibling with it. The first example of det-models' read-me runs there on a file of each system that it names.

det-coco's compiled reader must be there. All packages promise to work with every PyTorch from 2.10, and one wheel of
det-ops, which has compiled code, too, serves them all. So tests run against the wheels twice: with the oldest versions
that det-ops declares (PyTorch, NumPy, torchvision), and with the newest PyTorch that is known; those in between are the
development environment's. They are all tests of det-ops, and of the others those that show what PyTorch changes.
"""

import argparse
import contextlib
import functools
import http.server
import os
import re
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Generator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIBLINGS = {
    "det-ops": set(),
    "det-backbones": set(),
    "det-heads": {"det_ops", "det_backbones"},
    "det-coco": set(),
    "det-models": {"det_ops", "det_backbones", "det_heads", "det_coco"},
    "det-engine": set(),
}
PROBE = """
import importlib.util, sys
own, *declared = sys.argv[1:]
module = __import__(own)
others = {"det_ops", "det_backbones", "det_heads", "det_models", "det_coco", "det_engine"} - {own, *declared}
present = sorted(name for name in others if importlib.util.find_spec(name))
assert not present, f"{own} brought {present}, which it does not declare"
for name in module.__all__:
    getattr(module, name)
print(f"{own} {module.__version__}: {len(module.__all__)} public names")
"""


COMPILED = ROOT / "packages" / "det-ops"
TWINE = "7.0.0"
NEWEST = "2.15.0"
"""Of PyTorch; the torchvision of the development environment works with it."""
OTHERS = {
    "det-backbones": ("fpn", "norm", "resnet"),
    "det-heads": ("rpn", "mask_head", "keypoint_head", "yolact", "postprocess"),
    "det-models": ("two_stage", "cascade", "weights"),
    "det-coco": ("loader", "mask_codec"),
    "det-engine": ("train", "checkpoint", "wrapped", "precision"),
}
"""Tests of the other packages: layers, gradients, losses, compilers, checkpoints, number formats, workers."""
SERVED = """
import sys, numpy, torch, det_ops
from det_ops import _table, backends
assert det_ops.__file__.startswith(sys.prefix), f"{det_ops.__file__} is not the installed wheel"
served = [row.function for row in _table.table() if (row.device, row.kernel) == ("cpu", "C++")]
assert "nms" in served, "the extension does not serve the CPU: " + str(backends.BACKENDS["cpu"].missing)
print(f"det-ops with torch {torch.__version__}, NumPy {numpy.__version__}: C++ serves {', '.join(served)}", flush=True)
"""
# Libraries of PyTorch and OpenMP, paths of the machine that built it, names of source files.
FOREIGN = re.compile(rb"lib(?:torch|c10|gomp|i?omp\d)|/(?:home|root|tmp|Users)/|csrc/")


READS = """
import sys, det_coco
from det_coco import _table
assert det_coco.__file__.startswith(sys.prefix), f"{det_coco.__file__} is not the installed wheel"
assert _table.compiled is not None, "the compiled reader of annotations is missing"
print("det-coco: C++ reads annotations", flush=True)
"""


def run(*command: str | Path, **variables: str) -> None:
    environment = {**os.environ, "UV_CONSTRAINT": str(ROOT / "constraints.txt"), **variables}
    for name in ("PYTHONPATH", "DET_OPS_KERNELS"):
        environment.pop(name, None)
    subprocess.run([str(part) for part in command], check=True, env=environment)


def check_contents(wheel: Path, module: str) -> None:
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    for end in (f"{module}/py.typed", ".dist-info/licenses/LICENSE"):
        if not any(name.endswith(end) for name in names):
            sys.exit(f"{wheel.name} lacks {end}")
    if foreign := {name.split("/")[0] for name in names if not name.startswith((f"{module}/", f"{module}-"))}:
        sys.exit(f"{wheel.name} would install {', '.join(sorted(foreign))} beside {module}")
    for name in names:
        if name.endswith((".so", ".pyd")) and (found := set(FOREIGN.findall(archive.read(name)))):
            sys.exit(f"{wheel.name}: {name} must not mention {found}")


@contextlib.contextmanager
def serving(folder: Path) -> Generator[str]:
    """The address of an index of packages (PEP 503) with the wheels in a folder, for as long as it is needed."""
    for wheel in folder.glob("*.whl"):
        page = folder / "simple" / wheel.name.partition("-")[0].replace("_", "-") / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f'<a href="../../{wheel.name}">{wheel.name}</a>\n', encoding="utf-8")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()


def test_with(python: Path, environment: Path, wheels: dict[str, Path], constraints: Path, *oldest: str) -> None:
    """Run the tests in a new environment: with the versions in a file, or the oldest of det-ops' and those."""
    run("uv", "venv", "-q", "--clear", "--python", sys.executable, environment)
    install = ("uv", "pip", "install", "-q", "--python", python)
    project = COMPILED / "pyproject.toml"
    requirements = (wheels[COMPILED.name], "-r", project, "--group", f"{project}:test")
    run(*install, *oldest, *requirements, UV_CONSTRAINT="" if oldest else str(constraints))
    run(python, "-I", "-c", SERVED)
    _pytest(python, COMPILED / "tests")
    run(*install, *wheels.values(), UV_CONSTRAINT=str(constraints))
    chosen = [
        ROOT / "packages" / name / "tests" / f"test_{test}.py" for name, tests in OTHERS.items() for test in tests
    ]
    _pytest(python, "-m", "not slow", *chosen)


def _pytest(python: Path, *arguments: str | Path) -> None:
    workers = ("-n", str(os.cpu_count() or 1), "--dist", "worksteal")
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, *arguments, OMP_NUM_THREADS="1")


def run_example(python: Path, temporary: Path) -> None:
    """Run the first example of det-models' read-me on a file of each system."""
    sys.path.insert(0, str(ROOT))
    from testing.readmes import python_blocks
    from testing.trained import SYSTEMS, write_example

    code = python_blocks(ROOT / "packages" / "det-models" / "README.md")[0]
    for system in SYSTEMS:
        folder = temporary / f"example-{system}"
        folder.mkdir()
        write_example(folder, system)
        with contextlib.chdir(folder):
            run(python, "-I", "-c", code)
        print(f"det-models: the read-me's example on {system}'s file", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", default=list(SIBLINGS), help="default: all")
    packages = parser.parse_args().packages
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):  # away from the sources
        folder, environment = Path(temporary) / "wheels", Path(temporary) / "environment"
        python = environment / "bin" / "python"
        wheels = {}
        for package in SIBLINGS:
            run("uv", "build", "-q", "--python", sys.executable, "--out-dir", folder, ROOT / "packages" / package)
            module = package.replace("-", "_")
            (wheels[package],) = folder.glob(f"{module}-*.whl")
            check_contents(wheels[package], module)
        run("uvx", f"twine@{TWINE}", "check", "--strict", *folder.glob("*.whl"), *folder.glob("*.tar.gz"))
        for package in packages:
            run("uv", "venv", "-q", "--clear", "--python", sys.executable, environment)
            with serving(folder) as index:
                run("uv", "pip", "install", "-q", "--python", python, "--index", index, package)
            run(python, "-I", "-c", PROBE, package.replace("-", "_"), *sorted(SIBLINGS[package]))
            if package == "det-coco":
                run(python, "-I", "-c", READS)
            if package == "det-models":
                run_example(python, Path(temporary))
        if COMPILED.name in packages:
            pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
            constraints = Path(temporary) / "constraints.txt"
            constraints.write_text(re.sub(r"(?m)^torch==.*$", f"torch=={NEWEST}", pinned), encoding="utf-8")
            test_with(python, environment, wheels, constraints)
            constraints.write_text(re.sub(r"(?m)^torch.*$", "", pinned), encoding="utf-8")
            oldest = ("--resolution", "lowest-direct", "--only-binary", ":all:")
            test_with(python, environment, wheels, constraints, *oldest)


if __name__ == "__main__":
    main()
