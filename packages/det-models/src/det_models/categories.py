"""Categories of checkpoints that come from other systems, few of which say what they detect."""

from collections.abc import Mapping

from det_models.checkpoints import Checkpoint

COCO = dict(
    zip(
        (
            *range(1, 12), *range(13, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70, *range(72, 83),
            *range(84, 91),
        ),
        (
            "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
            "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
            "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
            "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
            "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
            "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
            "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
            "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
            "teddy bear", "hair drier", "toothbrush",
        ),
        strict=True,
    )
)  # fmt: skip
"""COCO's 80 categories, name by id."""

Categories = dict[int, str | None]
"""Name by id, in the order of the labels; None: a label that stands for no category and is never reported."""


def categories_of(checkpoint: Checkpoint) -> Categories:
    """The categories of a checkpoint: those it names; COCO's for 80 classes, or 90, numbered as COCO's ids; numbers."""
    classes, ids, count = checkpoint.classes, checkpoint.category_ids, checkpoint.num_classes
    if classes is not None:
        if ids is None:
            ids = tuple(COCO) if classes == tuple(COCO.values()) else range(1, count + 1)
        return dict(zip(ids, classes, strict=True))
    if ids is not None:
        names = COCO if ids == tuple(COCO) else {}
        return {identifier: names.get(identifier, str(identifier)) for identifier in ids}
    if count == max(COCO):
        return {identifier: COCO.get(identifier) for identifier in range(1, count + 1)}
    if count == len(COCO):
        return {**COCO}
    return {identifier: str(identifier) for identifier in range(1, count + 1)}


def reported(categories: Mapping[int, str | None]) -> dict[int, str]:
    """The categories without the labels that stand for none."""
    return {identifier: name for identifier, name in categories.items() if name is not None}
