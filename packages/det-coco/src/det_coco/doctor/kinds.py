"""The catalogue of what the check looks for, the most expensive first."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding.

    Attributes:
        severity: `error` stops a training or makes it wrong, `warning` costs accuracy, `note` is worth knowing.
        title: a heading.
        cost: what it does to a training or an evaluation, a whole sentence, and what to do where no change is certain.
        grouped: each case is a finding of its own.
    """

    severity: Severity
    title: str
    cost: str
    grouped: bool = False


KINDS: dict[str, Kind] = {
    # What stops a training, or makes all of it wrong.
    "unreadable_split": Kind("error", "Annotation file that cannot be read", "Nothing can be trained on it."),
    "fraction_boxes": Kind("error", "Boxes in fractions of the picture",
        "Read as pixels they are empty, and nothing is learnt."),
    "percent_boxes": Kind("error", "Boxes in per cent of the picture", "Read as pixels they are in the wrong place."),
    "corner_boxes": Kind("error", "Boxes as two corners",
        "COCO's are x, y, width, height; read so, they are too large."),
    "centre_boxes": Kind("error", "Boxes around their centres",
        "COCO's x, y is the upper left corner; read so, all are shifted."),
    "category_mismatch": Kind("error", "Categories that differ between splits",
        "What is learnt under one name is evaluated under another. Give all files the same list."),
    "leakage": Kind("error", "Pictures in several splits",
        "The evaluation sees what was trained on, so its figures are too good.", grouped=True),
    "near_leakage": Kind("error", "Nearly the same picture in several splits",
        "The evaluation sees what was trained on, so its figures are too good.", grouped=True),
    "missing_picture": Kind("error", "Pictures that are missing", "Training does not begin."),
    "unreadable_picture": Kind("error", "Pictures that cannot be read", "Training stops when it reaches one."),
    "wrong_size": Kind("error", "Pictures of another size than the file says",
        "Training stops when it reaches one, and if the picture was resized its boxes are in the wrong place."),
    "swapped_size": Kind("error", "Height and width swapped", "Training stops when it reaches one."),
    "exif_rotated": Kind("error", "Pictures annotated without their EXIF orientation",
        "Training stops when it reaches one. Remove the orientation from the picture, or annotate it upright."),
    "broken_image": Kind("error", "Images that cannot be used", "Training does not begin."),
    "duplicate_image_id": Kind("error", "Image ids used twice",
        "Training does not begin. To which picture the annotations belong, the file does not say; look at them."),
    "duplicate_image": Kind("error", "Pictures listed twice",
        "Training sees one picture with two sets of annotations, each of which makes the other a mistake."),
    "broken_category": Kind("error", "Categories that cannot be used", "Training does not begin."),
    "duplicate_category_id": Kind("error", "Category ids used twice",
        "Training does not begin. Which class is meant, the file does not say."),
    "broken_annotation": Kind("error", "Annotations that cannot be used", "Training does not begin."),
    "wrong_type": Kind("error", "Numbers written as text", "Training does not begin."),
    "unknown_image": Kind("error", "Annotations of images that are not in the file", "Training does not begin."),
    "unknown_category": Kind("error", "Annotations of categories that are not in the file",
        "Training does not begin."),
    "missing_box": Kind("error", "Annotations without a box", "Training does not begin."),
    "broken_box": Kind("error", "Boxes that are not four numbers", "Training does not begin."),
    "invalid_flag": Kind("error", "Flags that are neither 0 nor 1", "Training does not begin."),
    "broken_mask": Kind("error", "Masks that cannot be read", "Training does not begin."),
    "mask_size": Kind("error", "Run-length codes of another size than their picture", "Training does not begin."),
    "row_major_mask": Kind("error", "Run-length codes that go by rows",
        "COCO's go by columns; read so, the mask is somewhere else."),
    "broken_skeleton": Kind("error", "Lists of keypoints that cannot be read", "Training does not begin."),
    "broken_keypoints": Kind("error", "Keypoints that cannot be read",
        "Training of a keypoint detector does not begin."),
    "no_objects": Kind("error", "Splits without objects", "There is nothing to learn from or to evaluate on."),
    # What costs accuracy.
    "twin_annotations": Kind("warning", "Objects annotated twice",
        "Of two equal objects one always counts as missed, however good the detector is."),
    "conflicting_labels": Kind("warning", "One object with two labels",
        "Whichever of the two a detector says is counted as a mistake. Keep one."),
    "box_mask_disagree": Kind("warning", "Boxes that disagree with their masks",
        "Box and mask are learnt from different places."),
    "mask_outside": Kind("warning", "Masks that reach outside their picture", "What is outside is cut off."),
    "negative_box": Kind("warning", "Boxes with a negative side", "They are dropped."),
    "empty_box": Kind("warning", "Boxes without area", "They are dropped."),
    "box_outside": Kind("warning", "Boxes outside their picture", "They are dropped."),
    "box_over_edge": Kind("warning", "Boxes that reach over the edge of their picture",
        "They are clipped in training, but the evaluation compares with the box of the file."),
    "copied_annotations": Kind("warning", "Different pictures with the very same boxes",
        "Annotations were probably copied from one picture to the other. Look at both.", grouped=True),
    "label_outlier": Kind("warning", "Objects that look like those of another class",
        "They are probably mislabelled. Look at each."),
    "size_outlier": Kind("warning", "Objects of a size that no other of their class has",
        "The box or the label is probably wrong. Look at each."),
    "shape_outlier": Kind("warning", "Objects of a shape that no other of their class has",
        "The box or the label is probably wrong. Look at each."),
    "crowd_share": Kind("warning", "Many crowd regions",
        "They are not learnt. Some exporters mark all masks with holes or of several parts so; where that "
        "is the case, set their 'iscrowd' to 0."),
    "box_masks": Kind("warning", "Masks that are all boxes",
        "A mask detector learns rectangles. Train a box detector."),
    "partial_masks": Kind("warning", "Objects without a mask among others with one",
        "A mask detector leaves them out, and learns them as background."),
    "degenerate_mask": Kind("warning", "Polygons without area", "They are dropped, or cover nothing."),
    "crossing_polygon": Kind("warning", "Polygons that cross themselves",
        "The mask is not what was drawn, and tools disagree about what it is."),
    "wrong_area": Kind("warning", "Areas that disagree with the mask or box",
        "Metrics by size take the object for a smaller or larger one."),
    "area_of_box": Kind("warning", "Areas of the box where there is a mask",
        "Metrics by size take the objects for larger than they are in COCO."),
    "invalid_area": Kind("warning", "Areas that are no number from 0 on",
        "pycocotools leaves the objects out of metrics, or counts them as small."),
    "near_duplicate_picture": Kind("warning", "Nearly the same picture twice",
        "It counts twice in training or evaluation.", grouped=True),
    "duplicate_picture": Kind("warning", "The same picture twice",
        "It counts twice in training or evaluation.", grouped=True),
    "duplicate_category_name": Kind("warning", "Categories of one name",
        "They are learnt and evaluated as different classes."),
    "similar_category_names": Kind("warning", "Categories whose names differ in case or spaces alone",
        "They are learnt and evaluated as different classes. Join them if they are one."),
    "class_in_one_split": Kind("warning", "Classes that are not in every split",
        "What is only evaluated was never learnt, and what is only trained is never evaluated."),
    "few_objects": Kind("warning", "Classes with few objects",
        "A detector hardly learns them, and their AP is a matter of chance."),
    "background_category": Kind("warning", "A category for the background",
        "Detectors have a background of their own; this one is learnt as a class of objects. Remove it."),
    "duplicate_annotation_id": Kind("warning", "Annotation ids used twice",
        "pycocotools confuses the objects; det_coco does not go by them."),
    "annotation_id_zero": Kind("warning", "An annotation with id 0",
        "pycocotools counts it as missed even where it is found; det_coco does not go by ids."),
    "keypoints_outside": Kind("warning", "Labelled keypoints outside their picture",
        "They are learnt at a place that is not there."),
    "keypoint_at_origin": Kind("warning", "Labelled keypoints at 0, 0",
        "That is how a keypoint that is not labelled is written; its visibility should be 0."),
    "keypoints_off_box": Kind("warning", "Labelled keypoints far from their box",
        "They probably belong to another object."),
    "keypoint_count": Kind("warning", "Counts of keypoints that are wrong",
        "Evaluations pass over objects where 'num_keypoints' is 0."),
    "blank_picture": Kind("warning", "Pictures of one colour", "They are probably damaged."),
    "remark": Kind("warning", "What the reader had to interpret", "It is read so in training too."),
    # What is worth knowing.
    "bit_depth": Kind("note", "Pictures of more than 8 bits",
        "They are scaled to 8 bits, which may turn them dark; export them as you want them seen."),
    "transparent_picture": Kind("note", "Pictures with transparency", "It is dropped, and what was hidden appears."),
    "animated_picture": Kind("note", "Pictures of several frames", "The first is used."),
    "grey_picture": Kind("note", "Grey pictures among coloured ones", "They are read as they are."),
    "small_picture": Kind("note", "Very small pictures", "They are enlarged many times."),
    "wrong_suffix": Kind("note", "Pictures whose suffix names another format",
        "det_coco reads them, other programs may not."),
    "misnamed_picture": Kind("note", "File names that are not what the picture is called",
        "det_coco finds the pictures, other programs may not."),
    "missing_size": Kind("note", "Images without height and width",
        "det_coco takes those of the pictures; other programs fail."),
    "missing_area": Kind("note", "Annotations without an area", "det_coco measures it; pycocotools fails."),
    "missing_annotation_id": Kind("note", "Annotations without a usable id",
        "det_coco does not need it; pycocotools fails."),
    "tiny_box": Kind("note", "Tiny boxes",
        "They cover less than one cell of the finest level (4 x 4 pixels) unless the picture is enlarged."),
    "giant_box": Kind("note", "Boxes of the whole picture", "Look whether they mean an object or the picture."),
    "image_without_objects": Kind("note", "Images without objects",
        "They teach what is background, if that is what they are; look whether they were forgotten."),
    "unused_category": Kind("note", "Categories without objects",
        "They make the class predictor larger, and have no AP."),
    "unlisted_picture": Kind("note", "Pictures that no annotation file names", "They are not used."),
}  # fmt: skip
"""Kind -> what it means. `ranked` sorts by this order."""
