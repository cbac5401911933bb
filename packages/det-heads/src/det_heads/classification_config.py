"""By which loss a box head learns classes."""

from dataclasses import dataclass
from typing import Literal

from det_heads._require import require

__all__ = ["ClassificationConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassificationConfig:
    """The loss of a box head's classes.

    Attributes:
        kind: `softmax`: cross entropy over the classes and background (all reference systems); `sigmoid`: a binary
            cross entropy for each class, background being none of them (d2 USE_SIGMOID_CE); `focal`: the focal loss of
            those (Lin et al., arXiv:1708.02002); `seesaw`: softmax over the classes with less push from frequent to
            rare ones, and background told apart by itself (Wang et al., arXiv:2008.10032).
        focal_alpha: Weight of a box's own class, 1 - alpha that of the others; -1: none.
        focal_gamma: How much boxes that are classified well count less.
        seesaw_p: Exponent of the ratio of the classes' numbers of objects, by which rare ones are spared.
        seesaw_q: Exponent of the ratio of probabilities, by which confused classes are not.
        class_balance: beta of the class-balanced loss (Cui et al., arXiv:1901.05555), such as 0.999: a class of n
            objects has the weight (1 - beta) / (1 - beta^n), scaled to a mean of 1. 0: none. Background has weight 1.
        federated: Classes in the loss of an image: its own, and others drawn by the root of the number of images that
            have them, as many as make this number (Zhou et al., arXiv:2103.07461; 50 for LVIS). 0: all classes. Only
            with `sigmoid` and `focal`.
        object_counts: Objects of each class to train on, for `seesaw` and the class-balanced loss.
        image_counts: Images with each class to train on, for the federated loss.
    """

    kind: Literal["softmax", "sigmoid", "focal", "seesaw"] = "softmax"
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    seesaw_p: float = 0.8
    seesaw_q: float = 2.0
    class_balance: float = 0.0
    federated: int = 0
    object_counts: tuple[int, ...] = ()
    image_counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        kinds = ("softmax", "sigmoid", "focal", "seesaw")
        require(self.kind in kinds, "classification.kind", "softmax, sigmoid, focal or seesaw", self.kind)
        require(0 <= self.class_balance < 1, "classification.class_balance", "in [0, 1)", self.class_balance)
        require(self.federated >= 0, "classification.federated", "0 or a number of classes", self.federated)
        require(
            not self.federated or self.kind in ("sigmoid", "focal"),
            "classification.federated",
            "0 unless kind is sigmoid or focal",
            self.federated,
        )

    @property
    def needs_counts(self) -> bool:
        """Whether the loss depends on how many objects, or images, the classes have."""
        return self.kind == "seesaw" or self.class_balance > 0 or self.federated > 0
