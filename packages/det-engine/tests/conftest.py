import importlib.util
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def small():
    """The module `small.py` beside this file."""
    spec = importlib.util.spec_from_file_location("det_engine_tests_small", Path(__file__).with_name("small.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cpu():
    return torch.device("cpu")
