"""Why the AP is what it is: an evaluation taken apart, and results compared, as numbers and as pages."""

from det_coco.report.analysis import ClassResult, TaskReport, analyse
from det_coco.report.comparison import Comparison, Difference, compare
from det_coco.report.comparison_page import comparison_page, comparison_text
from det_coco.report.rendering import report_page

__all__ = [
    "ClassResult",
    "Comparison",
    "Difference",
    "TaskReport",
    "analyse",
    "compare",
    "comparison_page",
    "comparison_text",
    "report_page",
]
