import pytest
import torch

from testing import small_training


@pytest.fixture(scope="session")
def small():
    return small_training


@pytest.fixture
def cpu():
    return torch.device("cpu")
