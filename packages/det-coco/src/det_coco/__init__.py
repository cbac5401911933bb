"""COCO-format data: a validated index, augmentation, static batches, evaluation, pictures."""

from typing import TYPE_CHECKING

from det_coco.__about__ import __version__
from det_coco.lazy import lazily

if TYPE_CHECKING:
    from det_coco.annotations import CocoIndex, check_same_categories
    from det_coco.batches import Batch, BatchShape, Sample, default_buckets, make_batch
    from det_coco.curves import Curves, precision_recall
    from det_coco.detections import Detections
    from det_coco.drawn import Drawn, detections_of, ground_truth_of
    from det_coco.errors import DataError
    from det_coco.evaluation import evaluate
    from det_coco.formats.conversion import convert_data
    from det_coco.formats.samples import from_samples, split_of_samples
    from det_coco.holdout import HeldOut, hold_out
    from det_coco.images import list_images, load_image
    from det_coco.intervals import Interval, confidence_intervals, difference_intervals
    from det_coco.keypoints import Skeleton
    from det_coco.layout import Split, default_split, default_splits, find_splits, load_split
    from det_coco.loader import Loader, eval_loader, train_loader
    from det_coco.lvis import Federation
    from det_coco.matches import Matches, match_detections
    from det_coco.pictures import draw, save_picture, side_by_side
    from det_coco.protocol import Protocol
    from det_coco.remarks import Remark
    from det_coco.resize import Resize
    from det_coco.results import save_results, to_results
    from det_coco.rle import decode_rle
    from det_coco.selection import Limits, limits
    from det_coco.ssd import SSDAugmentation
    from det_coco.synthetic import cache_folder, synthetic_dataset
    from det_coco.transforms import Augmentation
    from det_coco.written_split import write_split
else:
    __getattr__, __dir__ = lazily(__name__, __file__)

__all__ = [
    "Augmentation",
    "Batch",
    "BatchShape",
    "CocoIndex",
    "Curves",
    "DataError",
    "Detections",
    "Drawn",
    "Federation",
    "HeldOut",
    "Interval",
    "Limits",
    "Loader",
    "Matches",
    "Protocol",
    "Remark",
    "Resize",
    "SSDAugmentation",
    "Sample",
    "Skeleton",
    "Split",
    "__version__",
    "cache_folder",
    "check_same_categories",
    "confidence_intervals",
    "convert_data",
    "decode_rle",
    "default_buckets",
    "default_split",
    "default_splits",
    "detections_of",
    "difference_intervals",
    "draw",
    "eval_loader",
    "evaluate",
    "find_splits",
    "from_samples",
    "ground_truth_of",
    "hold_out",
    "limits",
    "list_images",
    "load_image",
    "load_split",
    "make_batch",
    "match_detections",
    "precision_recall",
    "save_picture",
    "save_results",
    "side_by_side",
    "split_of_samples",
    "synthetic_dataset",
    "to_results",
    "train_loader",
    "write_split",
]
