"""What a check does unless it is told otherwise."""

import os
from pathlib import Path

DEFAULT_PAGE = Path("check.html")
"""The page that it writes."""


def default_workers() -> int:
    """Processes that read: one for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
