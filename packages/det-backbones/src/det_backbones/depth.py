"""Depths of residual networks."""

from typing import Literal

Depth = Literal[18, 34, 50, 101, 152]
"""Layers with weights (He et al., 2016, table 1)."""
