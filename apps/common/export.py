"""``export``: a trained detector as a file of another runtime, and the proof that it finds the same."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import tyro

from apps.common.app import App
from apps.common.commands import read_options
from apps.common.detecting import on_categories, turns_upright
from apps.common.detecting_options import DetectorOptions
from apps.common.evaluate import Evaluator
from apps.common.file_options import ExportOptions
from apps.common.splits import open_split
from apps.common.weights import open_detector
from det_coco import list_images
from det_coco.outputs import try_files
from det_engine.stages import stage
from det_models import CheckpointError, OptionError, Weights, open_weights
from det_models import export as export_file
from det_models.checkpoints import refuse_existing
from det_models.exported.weights import ExportedWeights
from det_models.exporting.card import card_path
from det_models.exporting.certifying import certify, passes
from det_models.exporting.settings import sees_padding

MOST_LOST = 0.005
"""AP that an exported file may have less than its checkpoint, unless it is forced; 0.5 points."""
CALIBRATION_PICTURES = 64
"""Of the data or folder, from which int8 learns the ranges of numbers."""
_SEES = "This network sees the zeros beside a picture, as by group norm"
_LESS = "One shape for all pictures pads most of them; --buckets True, or a --size that fits them, pads less."


def export(app: App, args: list[str]) -> None:
    """Write a detector for ONNX, OpenVINO, torch.export, AOTInductor or ExecuTorch, and certify it."""
    default = ExportOptions(out=tyro.MISSING, weights=tyro.MISSING)
    options = read_options(app, "export", args, default)
    for path in (options.out, card_path(options.out)):  # of several files, the card alone has the name as it is
        refuse_existing(path)
    try_files(options.out)
    weights = open_detector(app, options.weights)
    try:
        written = _certified(weights, options)
    except OSError as error:
        raise OptionError(f"{options.out} cannot be written: {error.strerror or error}.") from error
    sizes = sum(file.stat().st_size for file in written) / 2**20
    names = ", ".join(file.name for file in written)
    print(f"{options.weights} -> {options.out} ({options.to}, {options.precision}, {sizes:.1f} MiB: {names}).")


def _certified(weights: Weights, options: ExportOptions) -> list[Path]:
    """The files: nothing is there under its name before it is whole and known to be right."""
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out.parent) as name:
        with stage("exporting"):
            written = _write(weights, options, Path(name) / options.out.name)
        several = sum(file.suffix == options.out.suffix for file in written) > 1
        if several and options.buckets is None:
            print(f"{_SEES}, so there is a file for each shape of its training; --buckets False makes one for all.")
        fine = _compare(weights, options, written[-1])
        if options.buckets is False and options.size is None and sees_padding(weights.build()):
            print(f"Note: {_SEES.lower()}, so what it finds depends on them. {_LESS}")
        if not fine and not options.force:
            hint = "" if several else f"{_LESS} "
            raise CheckpointError(
                f"{options.out} is not written, since it would find something else than {options.weights}. {hint}"
                "To write it all the same: --force."
            )
        for file in written:
            if file.suffix == options.out.suffix:  # another process may have written it meanwhile
                refuse_existing(options.out.with_name(file.name))
        return [file.rename(options.out.with_name(file.name)) for file in written]


def _write(weights: Weights, options: ExportOptions, path: Path) -> list[Path]:
    return export_file(
        weights,
        path,
        options.to,
        batch=_batch(options.batch),
        size=options.size,
        buckets=options.buckets,
        precision=options.precision,
        preprocessing=options.preprocessing,
        masks=options.masks,
        ascend=options.purpose == "ascend",
        calibration=_calibration(weights, options) if options.precision == "int8" else (),
    )


def _batch(text: str | None) -> int | Literal["dynamic"] | None:
    if text is None or text == "dynamic":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise OptionError(f"--batch must be a number of images or dynamic, got {text!r}.")
    return int(text)


def _calibration(weights: Weights, options: ExportOptions) -> list[Path]:
    """Pictures to calibrate on."""
    if options.calibrate is not None:
        return list_images(options.calibrate)[:CALIBRATION_PICTURES]
    if options.data is None:
        raise OptionError("int8 learns the ranges of numbers from pictures: name some by --calibrate or --data.")
    index = open_split(options.data, options.split, weights)
    return [index.path(position) for position in range(min(len(index), CALIBRATION_PICTURES))]


def _compare(weights: Weights, options: ExportOptions, card: Path) -> bool:
    """Print what file and checkpoint have in common, as far as options ask for it, and say whether it is enough."""
    exported = open_weights(card)
    assert isinstance(exported, ExportedWeights)
    fine = True
    if options.certify is not None:
        with stage("certifying"):
            certificate = certify(weights, exported.predictor(), list_images(options.certify))
        fine, verdict = passes(certificate, options.precision)
        print(f"{certificate}\n  {verdict}")
    if options.data is not None:
        fine = _print_ap(weights, exported, options) and fine
    return fine


def _print_ap(weights: Weights, exported: Weights, options: ExportOptions) -> bool:
    """Print the AP of both, and say whether the file has lost at most :data:`MOST_LOST`."""
    index = replace(
        open_split(options.data, options.split, weights),
        exif=turns_upright(weights, DetectorOptions(weights=options.weights)),
    )
    found = []
    for one in (weights, exported):
        detector = on_categories(one, index).predictor()
        found.append(Evaluator(lambda detector=detector: detector, index, workers=0)())
    fine = True
    for task, before in found[0].items():
        after = found[1].get(task)
        if after is None:
            continue
        lost = before["AP"] - after["AP"]
        fine &= lost <= MOST_LOST
        print(f"{task} AP: {before['AP']:.4f} of the checkpoint, {after['AP']:.4f} of the file ({-lost:+.4f}).")
    return fine
