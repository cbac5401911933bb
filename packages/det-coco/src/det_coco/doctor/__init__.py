"""The doctor: reads a whole data set, pictures included, and says what is wrong with it and how to mend it."""

from typing import TYPE_CHECKING

from det_coco.lazy import lazily

if TYPE_CHECKING:
    from det_coco.doctor.checkup import Checkup, check_data
    from det_coco.doctor.findings import Finding
else:
    __getattr__, __dir__ = lazily(__name__, __file__)

__all__ = ["Checkup", "Finding", "check_data"]
