"""Signs of life of processes of this machine, as Linux shows them; elsewhere only this process's own."""

import multiprocessing.process
import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def cpu_seconds(process: int) -> float:
    """Seconds of computing that a process has taken with all its threads; 0 where that cannot be known."""
    if process == os.getpid():
        return time.process_time()
    fields = _stat(process)
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def is_stopped(process: int) -> bool:
    """Whether a process was stopped, as by SIGSTOP or a debugger, and waits to be continued."""
    return _stat(process)[:1] in (["T"], ["t"])


def children() -> list[int]:
    """Processes that this one started through `multiprocessing` and that have not ended, such as data workers."""
    # Not `active_children`, which looks for those that ended, and may do so while the main thread does.
    return [child.pid for child in list(multiprocessing.process._children)]  # type: ignore[attr-defined]


def _stat(process: int) -> list[str]:
    """Fields of /proc/N/stat from the state on; empty where there are none."""
    try:
        # The name before them may hold anything, but ends with the last parenthesis.
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
