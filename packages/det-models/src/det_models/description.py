"""What a checkpoint says of its network in plain values: enough to build it again, and to name what it finds."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

import cattrs

from det_coco import BatchShape, Resize, default_buckets
from det_coco.resize import SizeRule
from det_heads import OneStageConfig, YolactConfig
from det_models.categories import Categories
from det_models.checkpoints import CheckpointError
from det_models.config import BackboneConfig, ModelConfig, OneStageBackboneConfig, YolactBackboneConfig
from det_models.detector_config import DetectorConfig
from det_models.errors import OptionError

__all__ = ["describe", "read_description", "structured"]

T = TypeVar("T")


def describe(
    model: ModelConfig, categories: Mapping[int, str | None], limbs: Iterable[tuple[int, int]] = ()
) -> dict[str, Any]:
    """The values to save with the weights of a detector, such as `config` of :func:`det_engine.train`.

    Args:
        model: The network and the images that it gets.
        categories: Name by id, in the order of the labels; None for a label that is never reported.
        limbs: What pictures join, see :attr:`Detections.limbs`, such as ``index.skeleton.limbs``.

    Returns:
        ``model``, ``categories`` and perhaps ``limbs``, of numbers, texts, tuples, lists and dictionaries alone.

    Raises:
        OptionError: The network has another number of classes.
    """
    count = model.detector.num_classes
    if count != len(categories):
        raise OptionError(
            f"categories must be as many as the classes of the network, {count}, got {len(categories)}. Build it with "
            f"num_classes={len(categories)}."
        )
    named = [{"id": identifier, "name": name} for identifier, name in categories.items()]
    joined = [list(limb) for limb in limbs]
    return {"model": asdict(model), "categories": named} | ({"limbs": joined} if joined else {})


def read_description(values: Mapping[str, Any]) -> tuple[ModelConfig, Categories]:
    """The network and the categories that :func:`describe` wrote, or a run of before had as its recipe.

    Raises:
        CheckpointError: Something is missing, or was written by another version.
    """
    try:
        model = _of_recipe(values["recipe"]) if "model" not in values else values["model"]
        categories = structured({entry["id"]: entry["name"] for entry in values["categories"]}, dict[int, str | None])
        structured(values.get("limbs", ()), tuple[tuple[int, int], ...])
        found = _model(model)
        BatchShape(buckets=found.buckets, masks="none")  # which says what is no bucket
        return found, categories
    except CheckpointError:
        raise
    except Exception as error:  # of any kind, where any value may stand in place of any other
        raise CheckpointError(
            "what it says of its network was written by another version, or is damaged, and cannot be read"
        ) from error


def _model(values: Mapping[str, Any]) -> ModelConfig:
    kinds = next(kinds for field, kinds in _KINDS.items() if field in values["detector"])
    return ModelConfig(
        backbone=structured(values["backbone"], kinds[0]),
        detector=structured(values["detector"], kinds[1]),
        resize=structured(values["resize"], Resize),
        buckets=structured(values["buckets"], tuple[tuple[int, int], ...]),
    )


_KINDS: dict[str, tuple[type[BackboneConfig], Any]] = {
    "priors": (YolactBackboneConfig, YolactConfig),
    "locations": (OneStageBackboneConfig, OneStageConfig),
    "rpn": (BackboneConfig, DetectorConfig),
}
"""Backbone and detector, by a field that only these detectors have."""


def structured(values: Any, kind: type[T]) -> T:
    """The configuration that :func:`dataclasses.asdict` made these plain values of.

    Args:
        values: Dictionaries, lists, texts and numbers.
        kind: A dataclass; where it holds a :class:`DetectorConfig`, any subclass that has the values' fields is right.

    Raises:
        cattrs.BaseValidationError, ValueError: They are of no such class.
    """
    return _OUTER.structure(values, kind)


def _detector(values: Mapping[str, Any], _kind: type) -> DetectorConfig:
    """The smallest kind of detector that has all fields, an absent branch being none."""
    kinds = {kind: {field.name for field in fields(kind)} for kind in DetectorConfig.kinds()}
    given = {name for name, value in values.items() if value is not None}
    fitting = [kind for kind, names in kinds.items() if given <= names]
    if not fitting:
        unknown = ", ".join(sorted(given - kinds[DetectorConfig]))
        raise CheckpointError(
            f"its detector has {unknown}, which nothing here knows: import the module that defines such a detector; "
            "or another version wrote it"
        )
    kind = min(fitting, key=lambda kind: len(kinds[kind]))
    return _INNER.structure({name: value for name, value in values.items() if name in kinds[kind]}, kind)


_OUTER, _INNER = (cattrs.Converter(forbid_extra_keys=True) for _ in range(2))
_OUTER.register_structure_hook(DetectorConfig, _detector)


def _of_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The same values from a recipe, whose images are those of its evaluation."""
    data = recipe["data"]
    if "size" in data:
        images = _images((data["size"],), data["size"], "yolact")
    else:
        images = _images((data["test_size"],), data["max_size"], data["rounding"])
        largest = images["resize"] | {"shortest": (max(*data["train_sizes"], data["test_size"]),)}
        images["buckets"] = data["buckets"] or default_buckets(Resize(**largest))
    return {"backbone": recipe["backbone"], "detector": recipe["detector"], **images}


def _images(
    shortest: tuple[int, ...],
    longest: int,
    rule: SizeRule,
) -> dict[str, Any]:
    resize = Resize(shortest=shortest, longest=longest, rule=rule)
    return {"resize": asdict(resize), "buckets": default_buckets(resize)}
