"""What an exported file says of itself, and the example that runs it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from det_heads import YolactConfig
from det_models.__about__ import __version__
from det_models.config import ModelConfig
from det_models.exporting.settings import Settings

FORMAT, VERSION = "det export", 1
"""What the metadata of our exported files begin with."""

MEANINGS = {
    "boxes": "x1, y1, x2, y2 in pixels of the network's input, x2 and y2 outside of the object; divide by the scale",
    "scores": "probability of the class, best first",
    "labels": "class, counted from 0, in the order of the categories",
    "valid": "whether the row is a detection; the rows behind them are zero",
    "mask_scores": "score of the mask, where it is another than that of the box",
    "keypoints": "of each detection x, y in pixels of the network's input",
}

MASKS = {
    "28": "probability that a pixel is of the object, over the box",
    "whole": "probability that a pixel is of the object, over the whole input, zero outside of the box",
    "full": "whether a pixel of the network's input is of the object",
}


def card_of(
    model: ModelConfig,
    categories: Mapping[int, str | None],
    settings: Settings,
    shape: tuple[int, int],
    *,
    outputs: Mapping[str, tuple[str, list[Any]]],
    described: Mapping[str, Any],
    source: str = "",
) -> dict[str, Any]:
    """What a file says of itself, in plain values.

    Args:
        model: The detector.
        categories: Name by id, in the order of the labels.
        settings: What was exported.
        shape: (height, width) of its images.
        outputs: dtype and shape of each.
        described: What :func:`det_models.describe` says, and perhaps more.
        source: Name of the file that it was made of.
    """
    count: Any = "B" if settings.batch == "dynamic" else settings.batch
    head = model.selection
    return {
        "format": FORMAT,
        "version": VERSION,
        "written_by": f"det-models {__version__}",
        "source": source,
        "to": settings.to,
        "precision": settings.precision,
        "preprocessing": settings.preprocessing,
        "masks": settings.masks,
        "batch": settings.batch,
        "shape": list(shape),
        "categories": [{"id": identifier, "name": name} for identifier, name in categories.items()],
        "score_threshold": head.score_threshold,
        "nms_iou": head.nms_threshold,
        "max_detections": head.max_detections,
        "resize": _resize(model, shape),
        "pixels": _pixels(model, settings),
        "inputs": {
            "images": {
                "dtype": "float32"
                if settings.preprocessing == "out"
                else str(model.resize.dtype).removeprefix("torch."),
                "shape": [count, 3, *shape],
                "meaning": "pictures, resized, at the upper left; zero to the right and below",
            },
            "image_sizes": {
                "dtype": "int32",
                "shape": [count, 2],
                "meaning": "height and width of each picture without the zeros",
            },
        },
        "outputs": {
            name: {"dtype": dtype, "shape": sides, "meaning": _meaning(name, settings, model)}
            for name, (dtype, sides) in outputs.items()
        },
        "det": dict(described),
    }


def _resize(model: ModelConfig, shape: tuple[int, int]) -> dict[str, Any]:
    rule = model.resize
    if rule.rule == "yolact":
        return {"meaning": "to height and width, whatever the aspect", "height": shape[0], "width": shape[1]}
    return {
        "meaning": "bilinear, by min(shortest / shorter side, longest / longer side, and what fits into the shape)",
        "shortest": rule.shortest[-1],
        "longest": rule.longest,
        "as_in": rule.rule,
    }


def _pixels(model: ModelConfig, settings: Settings) -> dict[str, Any]:
    pixels = model.detector.pixels
    if settings.preprocessing == "in":
        return {"order": "rgb", "range": [0, 255]}
    return {
        "order": pixels.order,
        "scale": pixels.scale,
        "mean": list(pixels.mean),
        "std": list(pixels.std),
        "meaning": "(pixel of 0 to 255 / scale - mean) / std in that order of channels; zero where there is no picture",
    }


def _meaning(name: str, settings: Settings, model: ModelConfig) -> str:
    if name != "masks":
        return MEANINGS.get(name, "see the documentation of the detector's head")
    if settings.masks == "full":
        return MASKS["full"]
    return MASKS["whole" if isinstance(model.detector, YolactConfig) else "28"]


def card_path(path: Path) -> Path:
    """Path where the card of a file lies."""
    return path.with_name(f"{path.name}.json")


def example_path(path: Path) -> Path:
    """Path where its example lies."""
    return path.with_name(f"{path.name}.py")
