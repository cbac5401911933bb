"""``convert``: a trained model, ours or another system's, as a checkpoint of any of them; and the proof of it."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from torch import Tensor

from apps.common.app import App
from apps.common.config import Recipe, TwoStageRecipe
from apps.common.weights import Trained, describe, load_trained
from det_backbones import read_arrays
from det_coco import Batch, Sample, list_images, load_image, make_batch
from det_engine import checkpoint
from det_engine.options import override
from det_models import Detector
from det_models.certificate import Certificate, compare
from det_models.checkpoints import (
    TARGETS,
    CheckpointError,
    as_run_by,
    detect_system,
    differences,
    leftover,
    load_reference,
    refuse_existing,
    to_checkpoint,
    torchvision_labels,
    with_leftover,
    write_checkpoint,
)
from det_models.foreign_settings import foreign_settings

DIVISOR = 32


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Options of `convert`."""

    out: tyro.conf.Positional[Path]
    """The file to write; nothing is written over. With detectron2, `.pkl` makes a pickle as in its model zoo."""
    weights: Path
    """A run's checkpoint, or a detector of another system."""
    to: Literal["ours", "detectron2", "mmdetection", "torchvision"]
    """Whose names, layout and container."""
    certify: Path | None = None
    """A picture or a folder of pictures: run both networks on them and print how far they differ."""


def convert(app: App, args: list[str]) -> None:
    """Write a model as a checkpoint of ours, detectron2, mmdetection or torchvision, and certify it."""
    default = ConvertOptions(out=tyro.MISSING, weights=tyro.MISSING, to=tyro.MISSING)
    options = override(default, args, f"apps/{app.name} convert", convert.__doc__)
    refuse_existing(options.out)
    pictures = [] if options.certify is None else list_images(options.certify)
    trained = load_trained(app, options.weights)
    trained.model.eval()
    recipe = write(app, trained, options)
    print(f"{options.weights} -> {options.out} ({options.to}, {len(trained.model.state_dict())} tensors).")
    if options.to != "ours" and isinstance(recipe, TwoStageRecipe):
        _print_settings(trained, recipe, options.to)
    if pictures:
        certify(app, trained, recipe, options, pictures)


def write(app: App, trained: Trained, options: ConvertOptions) -> Recipe:
    """Write the file and return the recipe of the network that it holds."""
    recipe = trained.recipe
    origin, rest = _origin(app, trained, options.weights)
    if options.to == "ours":
        content = {"model": trained.model.state_dict(), "config": describe(app, recipe, trained.categories)}
        checkpoint.save(options.out, content | ({"foreign": {"system": origin, "tensors": rest}} if rest else {}))
        return recipe
    if not isinstance(recipe, TwoStageRecipe):
        raise CheckpointError(f"{app.name} can be written as ours alone: {options.to} has no such detector")
    content = _content(app, trained, recipe, options.to)
    write_checkpoint(options.out, with_leftover(content, rest) if origin == options.to else content)
    return as_recipe_of(recipe, options.to)


def _content(app: App, trained: Trained, recipe: TwoStageRecipe, system: str) -> dict[str, Any]:
    """What is written for a system: with our own description, where its container has room for one."""
    content = to_checkpoint(
        trained.model.state_dict(),
        recipe.detector,
        system,
        categories={identifier: name or "N/A" for identifier, name in trained.categories.items()},
        norm_eps=recipe.backbone.norm_eps,
    )
    if system == "torchvision":
        return content
    backbone = as_recipe_of(recipe, system).backbone
    return content | {"det": describe(app, dataclasses.replace(recipe, backbone=backbone), trained.categories)}


def _origin(app: App, trained: Trained, weights: Path) -> tuple[str | None, Mapping[str, Tensor]]:
    """The system that a model comes from, and what its file there says beyond ours."""
    if checkpoint.is_checkpoint(weights):
        foreign = checkpoint.load(weights).get("foreign") or {"system": None, "tensors": {}}
        return foreign["system"], foreign["tensors"]
    arrays = read_arrays(weights)
    spelling = detect_system(arrays)
    system = "torchvision" if spelling.startswith("torchvision") else spelling
    if system not in TARGETS or not isinstance(trained.recipe, TwoStageRecipe):
        return system, {}
    return system, leftover(_content(app, trained, trained.recipe, system), arrays, spelling)


def as_recipe_of(recipe: TwoStageRecipe, system: str) -> TwoStageRecipe:
    """The recipe as a system runs it that was told everything that it can be told."""
    backbone = recipe.backbone
    if system == "detectron2":
        backbone = dataclasses.replace(backbone, norm_eps=1e-5)
    return dataclasses.replace(recipe, backbone=backbone, detector=as_run_by(recipe.detector, system))


def _print_settings(trained: Trained, recipe: TwoStageRecipe, system: str) -> None:
    told = recipe
    if system == "torchvision":
        classes = max(torchvision_labels(list(trained.categories)))
        told = dataclasses.replace(recipe, detector=dataclasses.replace(recipe.detector, num_classes=classes))
    lines = foreign_settings(told.model(), system)
    if lines:
        print(f"\nSet in {system}, beside its ResNet-50-FPN defaults:")
        print("\n".join(f"  {line}" for line in lines))
    if system == "torchvision" and trained.recipe.detector.pixels.order == "bgr":
        print("\nThe first convolution now reads RGB, as torchvision does.")
    rules = _rules(trained, recipe)
    if rules:
        print(f"\n{system} has rules of its own, so detections differ, little or much:")
        print("\n".join(f"  {rule}" for rule in rules))


def _rules(trained: Trained, recipe: TwoStageRecipe) -> list[str]:
    found = differences(trained.recipe.detector, recipe.detector)
    return [f"{name}: {theirs}, here {ours}" for name, (ours, theirs) in found.items()]


def certify(app: App, trained: Trained, recipe: Recipe, options: ConvertOptions, pictures: list[Path]) -> None:
    """Run the source and what was written on the pictures and print the certificates.

    Raises:
        CheckpointError: they are not the same, and no rule of the other system explains it.
    """
    batches = list(_batches(recipe, pictures))
    model = reloaded(app, recipe, options)
    rules = []
    if options.to != "ours" and isinstance(recipe, TwoStageRecipe):
        rules = _rules(trained, recipe)
    print()
    names = f"{options.weights.name} and {options.out.name}"
    wrong = _verdict(compare(f"Parity certificate: {names}, read back", trained.model, model, batches), rules)
    if options.to == "torchvision" and isinstance(recipe, TwoStageRecipe):
        wrong |= _certify_torchvision(trained, recipe, model, options, batches)
    if wrong:
        raise CheckpointError(f"{options.out} is not the same network as {options.weights}; do not use it")


def reloaded(app: App, recipe: Recipe, options: ConvertOptions) -> Detector:
    """The network in the file just written, through the loader, under the conventions of its system."""
    if options.to == "ours":
        return load_trained(app, options.out).model.eval()
    model = app.network(recipe)
    load_reference(model, read_arrays(options.out))
    return model.eval()


def _certify_torchvision(
    trained: Trained, recipe: TwoStageRecipe, model: Detector, options: ConvertOptions, batches: list[Batch]
) -> bool:
    """Whether torchvision itself, on the file that was written, computes something else than we do by its rules."""
    from det_models.torchvision_peer import TorchvisionOutputs, torchvision_network

    peer = torchvision_network(recipe.model(), read_arrays(options.out))
    if peer is None:
        print("\ntorchvision itself cannot run it: its ResNets have 64 channels in the stem.")
        return False
    labels = torchvision_labels(list(trained.categories))
    title = f"Parity certificate: {options.out.name} here and in torchvision {_version()}"
    print()
    return _verdict(compare(title, model, model, batches, TorchvisionOutputs(peer, labels)), [])


def _version() -> str:
    import torchvision

    return torchvision.__version__


def _verdict(certificate: Certificate, rules: list[str]) -> bool:
    """Print a certificate and what follows from it; whether something is wrong."""
    print(certificate)
    if not certificate.same_layers:
        print("  FAILED: layers compute something else.")
        return True
    if certificate.lonely == 0:
        print("  PASSED: the same layers and the same detections.")
        return False
    if certificate.same_detections:
        print(f"  PASSED: the same layers and detections; rounding exchanged {certificate.lonely} near equals.")
        return False
    if rules:
        print("  PASSED as for the layers. Detections differ by the rules named above: evaluate over there before use.")
        return False
    print("  FAILED: the same layers, but other detections.")
    return True


def _batches(recipe: Recipe, pictures: list[Path]) -> Iterator[Batch]:
    """A batch per picture, resized as in evaluation; padded to a multiple of 32, as all systems do it."""
    resize, shape = recipe.test_resize(), dataclasses.replace(recipe.batch_shape(), masks="none")
    for path in pictures:
        image = load_image(path)
        height, width = resize.output_size(*image.shape[:2])
        if isinstance(recipe, TwoStageRecipe):
            bucket = (-(-height // DIVISOR) * DIVISOR, -(-width // DIVISOR) * DIVISOR)
            shape = dataclasses.replace(shape, buckets=(bucket,))
        sample = Sample(
            image=resize.apply(image, height, width),
            image_id=0,
            scale=(height / image.shape[0], width / image.shape[1]),
            boxes=np.zeros((0, 4), dtype=np.float32),
            labels=np.zeros(0, dtype=np.int64),
            crowd=np.zeros(0, dtype=bool),
        )
        yield make_batch([sample], shape, ground_truth=False)
