"""Programs in processes of their own, as users start them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from testing import ROOT


def python(*arguments: object, folder: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """The ended `python ARGUMENTS`, with what it printed; `variables` are added to the environment."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=1800,
    )


def start_python(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """`python ARGUMENTS` while it runs; `options` are those of `subprocess.Popen`."""
    options = {"env": environment(), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([sys.executable, *map(str, arguments)], **options)


def environment(**variables: str) -> dict[str, str]:
    """This process's environment for one that finds the modules this one finds, and prints without delay."""
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": search, "PYTHONUNBUFFERED": "1", **variables}
