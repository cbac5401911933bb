"""Tests that repeat: each begins with the same random numbers, and Hypothesis tries the same examples in every run.

`pytest --hypothesis-profile=default` looks for new examples. `hatch run test` runs files side by side, one process a
core, each with its share of the cores; `hatch run pytest` is one process with all of them.
"""

import os
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine's other work.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")

if processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    threads = max(1, (os.cpu_count() or 1) // processes)
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for the commands that tests start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of long tests, so that no process works on one alone in the end."""
    marks = ("slow", "faults")
    long = Counter(item.path for item in items if any(item.get_closest_marker(mark) for mark in marks))
    items.sort(key=lambda item: -long[item.path])


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """So that a test does not depend on those that ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - code under test may use it
    torch.manual_seed(0)
