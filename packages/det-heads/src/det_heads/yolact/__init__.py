"""YOLACT and YOLACT++ (Bolya et al., 2019): masks as combinations of prototypes, in one stage."""

from typing import TYPE_CHECKING

from det_backbones.lazy import lazily

if TYPE_CHECKING:
    from det_heads.yolact.config import (
        MaskIoUConfig,
        PriorConfig,
        YolactConfig,
        YolactLossConfig,
        yolact_config,
        yolact_plus_config,
    )
    from det_heads.yolact.model import Yolact
else:
    __getattr__, __dir__ = lazily(__name__, __file__)

__all__ = [
    "MaskIoUConfig",
    "PriorConfig",
    "Yolact",
    "YolactConfig",
    "YolactLossConfig",
    "yolact_config",
    "yolact_plus_config",
]
