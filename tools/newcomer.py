"""The way of a newcomer, each step timed: `python tools/newcomer.py PICTURE`, with nothing but Python and git.

It clones the repository into a temporary folder, installs Hatch in a virtual environment, trains the default of
apps/mask_rcnn and looks at the picture with what was trained. The table of docs/questions.md comes row by row on
stdout, all else on stderr. Packages come from the caches of pip and uv where these have them.
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
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n\n| step | minutes |\n|---|---|", flush=True)
        began = start = time.perf_counter()
        for name, command in steps.items():
            place = clone if clone.exists() else Path(folder)
            ended = subprocess.run(command, cwd=place, env=environment, stdout=sys.stderr, check=False)
            if ended.returncode:
                print(f"{name} has failed.", file=sys.stderr)
                return ended.returncode
            before, start = start, time.perf_counter()
            print(f"| {name} | {(start - before) / 60:.1f} |", flush=True)
        print(f"| together | {(start - began) / 60:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
