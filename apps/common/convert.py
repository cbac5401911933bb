"""``convert``: a trained model, ours or another system's, as a checkpoint of any of them; and the proof of it."""

from pathlib import Path

import tyro

from apps.common.app import App
from apps.common.commands import read_options
from apps.common.file_options import ConvertOptions
from apps.common.weights import open_detector
from det_backbones import read_arrays
from det_coco import list_images
from det_coco.outputs import try_files
from det_engine import checkpoint
from det_models.certificate import Certificate, certificate_batches, compare
from det_models.checkpoints import CheckpointError, refuse_existing, torchvision_labels
from det_models.conversion import Conversion
from det_models.conversion import convert as convert_to


def convert(app: App, args: list[str]) -> None:
    """Write a model as a checkpoint of ours, detectron2, mmdetection or torchvision, and certify it."""
    default = ConvertOptions(out=tyro.MISSING, weights=tyro.MISSING, to=tyro.MISSING)
    options = read_options(app, "convert", args, default)
    refuse_existing(options.out)
    try_files(options.out)
    pictures = [] if options.certify is None else list_images(options.certify)
    converted = convert_to(open_detector(app, options.weights), options.to)
    if options.to == "ours" and options.out.suffix != ".safetensors":
        checkpoint.save(options.out, converted.content)
    else:
        converted.write(options.out)
    print(f"{options.weights} -> {options.out} ({options.to}, {len(converted.network.state_dict())} tensors).")
    _print_settings(converted)
    if pictures:
        _certify(converted, options, pictures)


def _print_settings(converted: Conversion) -> None:
    system, lines, rules = converted.system, converted.settings(), converted.rules()
    if lines:
        print(f"\nSet in {system}, beside its ResNet-50-FPN defaults:")
        print("\n".join(f"  {line}" for line in lines))
    if system == "torchvision" and converted.source.network().detector.pixels.order == "bgr":
        print("\nThe first convolution now reads RGB, as torchvision does.")
    if rules:
        print(f"\n{system} has rules of its own, so detections differ, little or much:")
        print("\n".join(f"  {rule}" for rule in rules))


def _certify(converted: Conversion, options: ConvertOptions, pictures: list[Path]) -> None:
    """Run the source and what was written on the pictures and print the certificates.

    Raises:
        CheckpointError: They are not the same, and no rule of the other system explains it.
    """
    batches = list(certificate_batches(converted.model, pictures))
    model = converted.read_back(options.out)
    names = f"{options.weights.name} and {options.out.name}"
    print()
    certificate = compare(f"Parity certificate: {names}, read back", converted.network, model, batches)
    wrong = not _passes(certificate, converted.rules())
    if options.to == "torchvision":
        print()
        labels = torchvision_labels(list(converted.source.categories))
        from det_models.torchvision_peer import TorchvisionOutputs, torchvision_network, version

        peer = torchvision_network(converted.model, read_arrays(options.out))
        if peer is None:
            print("torchvision itself cannot run it: its ResNets have 64 channels in the stem.")
        else:
            title = f"Parity certificate: {options.out.name} here and in torchvision {version()}"
            wrong |= not _passes(compare(title, model, model, batches, TorchvisionOutputs(peer, labels)), [])
    if wrong:
        raise CheckpointError(f"{options.out} is not the same network as {options.weights}; do not use it.")


def _passes(certificate: Certificate, rules: list[str]) -> bool:
    passed, verdict = certificate.verdict(differs=bool(rules))
    print(f"{certificate}\n  {verdict}")
    return passed
