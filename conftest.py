"""Tests that repeat: each begins with the same random numbers, and Hypothesis tries the same examples in every run.

`pytest --hypothesis-profile=default` looks for new examples.
"""

import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine's other work.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """So that a test does not depend on those that ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - code under test may use it
    torch.manual_seed(0)
