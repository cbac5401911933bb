"""The doctor: reads a whole data set, pictures included, and says what is wrong with it and how to mend it."""

from det_coco.doctor.checkup import Checkup, check_data
from det_coco.doctor.findings import Finding

__all__ = ["Checkup", "Finding", "check_data"]
