"""YOLACT and YOLACT++ (Bolya et al., 2019): masks as combinations of prototypes, in one stage."""

from det_heads.yolact.config import (
    MaskIoUConfig,
    PriorConfig,
    YolactConfig,
    YolactLossConfig,
    yolact_config,
    yolact_plus_config,
)
from det_heads.yolact.model import Yolact

__all__ = [
    "MaskIoUConfig",
    "PriorConfig",
    "Yolact",
    "YolactConfig",
    "YolactLossConfig",
    "yolact_config",
    "yolact_plus_config",
]
