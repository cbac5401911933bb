# ruff: noqa: N999
import numpy as np

def scan(
    text: bytes,
) -> tuple[int, int, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None: ...
