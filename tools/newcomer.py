"""The way of a newcomer, each step timed: `python tools/newcomer.py PICTURE`, with nothing but Python and git.

It clones the repository into a temporary folder, installs Hatch in a virtual environment, trains the default of
apps/mask_rcnn and looks at the picture with what was trained; then it prints the table of docs/questions.md. Packages
come from the caches of pip and uv where these have them.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_OURS = ("PYTHONPATH", "VIRTUAL_ENV", "UV_CONSTRAINT", "HATCH_ENV_ACTIVE")


def main() -> int:
    """Walk it; the status of the first step that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    picture = parser.parse_args().picture.resolve()
    environment = {name: value for name, value in os.environ.items() if name not in _OURS}
    with tempfile.TemporaryDirectory() as folder:
        clone, tools = Path(folder, "det"), Path(folder, "tools")
        hatch = tools / "bin" / "hatch"
        run = [hatch, "run", "apps/mask_rcnn"]
        steps = {
            "clone the repository": ["git", "clone", "--quiet", ROOT, clone],
            "make a virtual environment": [sys.executable, "-m", "venv", tools],
            "`pip install hatch`": [tools / "bin" / "pip", "install", "--quiet", "hatch"],
            "the environment, made by the first `hatch run`": [hatch, "run", "python", "-c", ""],
            "`hatch run apps/mask_rcnn train`": [*run, "train", "--output", "runs/first"],
            "`hatch run apps/mask_rcnn predict --weights RUN my.jpg`": [
                *run, "predict", "--weights", "runs/first", "--output", "found", picture,
            ],
        }  # fmt: skip
        taken = {}
        for name, command in steps.items():
            began = time.perf_counter()
            place = clone if clone.exists() else Path(folder)
            status = subprocess.run(command, cwd=place, env=environment, check=False).returncode
            if status:
                print(f"{name} has failed.", file=sys.stderr)
                return status
            taken[name] = (time.perf_counter() - began) / 60
        size = sum(file.stat().st_size for file in (clone / ".hatch").rglob("*") if file.is_file()) / 1e9
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[2]:.1f}, an environment of {size:.1f} GB\n")
    print("| step | minutes |\n|---|---|")
    for name, minutes in {**taken, "together": sum(taken.values())}.items():
        print(f"| {name} | {minutes:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
