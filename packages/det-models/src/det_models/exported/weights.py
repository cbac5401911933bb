"""Exported files, as whatever else `--weights` may name."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from det_backbones import WeightsFile
from det_models.checkpoints import CheckpointError
from det_models.config import ModelConfig
from det_models.description import read_description
from det_models.errors import OptionError
from det_models.exported.predictor import ExportedPredictor
from det_models.exported.runtimes import OPENERS, read_card, sha256
from det_models.weights import Weights

__all__ = ["ExportedWeights", "open_exported"]

FORMAT, VERSION = "det export", 1


@dataclass(frozen=True, kw_only=True)
class ExportedWeights(Weights):
    """A detector in exported files; it can be run, and neither trained nor converted.

    Attributes:
        card: What the files say of themselves.
        files: By (height, width) of their images.
    """

    card: Mapping[str, Any]
    files: Mapping[tuple[int, int], Path]

    def __str__(self) -> str:
        return f"exported for {self.card['to']} in {self.card['precision']}"

    @property
    def description(self) -> Mapping[str, Any]:
        """What :func:`det_models.describe` says of the detector."""
        return self.card["det"]

    def network(self) -> ModelConfig:
        """The model."""
        assert self.model is not None
        return self.model

    def _tensors(self) -> NoReturn:
        raise CheckpointError(f"{self.path} is {self}, and can only be run: name the checkpoint that it was made of.")

    def build(self) -> NoReturn:
        """Refuse: no weights can be had of it.

        Raises:
            CheckpointError: Always.
        """
        return self._tensors()

    def on_images_of(self, model: ModelConfig) -> "Weights":  # noqa: ARG002
        """Refuse: the sizes of images are in the file.

        Raises:
            OptionError: Always.
        """
        raise OptionError(f"{self.path} has its own sizes of images; leave out the recipe.")

    def predictor(
        self,
        *,
        device: str | torch.device = "auto",
        precision: str = "fp32",
        batch_size: int = 1,
        max_detections: int | None = None,
        nms_iou: float | None = None,
        classes: Iterable[str | int] | None = None,
        size: int | tuple[int, int] | None = None,
    ) -> ExportedPredictor:
        """The detector in its runtime; see :func:`det_models.load`.

        Raises:
            OptionError: What is asked for was settled when the file was written: `nms_iou`, `size`, or `precision`.
        """
        settled = {"nms_iou": nms_iou, "size": size, "precision": None if precision == "fp32" else precision}
        for name, value in settled.items():
            if value is not None:
                raise OptionError(
                    f"{name} is settled in {self.path}, which was exported: leave it out, or export again."
                )
        most = self.network().max_detections
        if max_detections is not None and max_detections > most:
            raise OptionError(f"max_detections must be at most {most}, which {self.path} gives, got {max_detections}.")
        return ExportedPredictor(
            self.files,
            self.card,
            self.network(),
            self.categories,
            device=device,
            batch_size=batch_size,
            max_detections=max_detections,
            classes=classes,
            limbs=self.limbs,
            source=str(self.path),
        )


def open_exported(path: Path) -> ExportedWeights | None:
    """The detector in an exported file, or in all those of a card; None where it is neither.

    Raises:
        CheckpointError: It is damaged, or was written by a later version.
        OptionError: Its runtime is not installed.
    """
    _check_whole(path)
    card = _card_file(path) if path.suffix == ".json" else read_card(path)
    if card is None and path.suffix == ".json" and path.is_file():
        raise CheckpointError(f"{path} is damaged, or no card of an exported file. Name the exported file itself.")
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        return None
    try:
        if card["version"] > VERSION:
            raise CheckpointError(f"it was written by {card.get('written_by')}; update det-models")
        shapes = card["files"] if path.suffix == ".json" else [(*card["shape"], path.name)]
        files = {(int(height), int(width)): path.with_name(name) for height, width, name in shapes}
        card = {**card, "outputs": dict(card["outputs"])}
        batch: Any = card["batch"]
        if card["to"] not in OPENERS or card["masks"] not in ("28", "full", "none"):
            raise ValueError
        if batch != "dynamic" and int(batch) < 1:
            raise ValueError
        model, categories = read_description(card["det"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {str(error).removesuffix('.')}.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: what it says of itself cannot be read. Export it again.") from error
    missing = [file.name for file in files.values() if not file.is_file()]
    if missing:
        raise CheckpointError(f"{path} names {missing[0]}, which is not beside it.")
    return ExportedWeights(
        path=path,
        kind="exported",
        file=WeightsFile(arrays={}, metadata={}),
        model=model,
        categories=categories,
        card=card,
        files=files,
    )


def _check_whole(path: Path) -> None:
    """Hold files against the checksums in their card, where it lies beside them.

    Raises:
        CheckpointError: They differ.
    """
    own = path if path.suffix == ".json" else path.with_name(f"{path.name}.json")
    checksums = (_card_file(own) or {}).get("sha256")
    for name, expected in checksums.items() if isinstance(checksums, dict) else ():
        file = own.with_name(Path(name).name)
        if file.is_file() and sha256(file) != expected:
            raise CheckpointError(
                f"{file} is damaged, or was changed: it does not match its checksum in {own.name}. Export it again; to "
                f"run it as it is, remove {own.name}."
            )


def _card_file(path: Path) -> dict[str, Any] | None:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return card if isinstance(card, dict) else None
