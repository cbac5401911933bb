"""Inference beside torchvision's: network, detections, and masks at the image's size; images resident on the device.

    hatch run bench infer [--models mask_rcnn faster_rcnn ...] [--batch 1 2] [--size 800 1216]
                           [--device cuda] [--precision bf16]

Both sides have the same weights and find the same objects (as many as they may report, a hundred an image). Our masks
end as COCO run lengths, torchvision's as one float image each. `network` is the time until boxes and 28x28 masks are
on the device; on CUDA it is replayed from a graph.
"""

import argparse
import contextlib
from collections.abc import Callable

import torch
from detectors import DETECTORS, Pair
from measuring import add_options, append, take_turns
from scenes import Batch, as_torchvision, make_scene

from det_engine.capture import Captured, graph_pool
from det_models.inference import optimize_for_inference


def our_sides(
    pair: Pair, batch: Batch, options: argparse.Namespace
) -> tuple[Callable[[], object], Callable[[], Batch]]:
    """Everything, and the network alone."""
    device = torch.device(options.device)
    dtype = torch.bfloat16 if options.precision == "bf16" else None
    model = optimize_for_inference(pair.ours, device, dtype)
    inputs = {name: batch[name].to(device) for name in ("images", "image_sizes")}
    sizes = [(int(height), int(width)) for height, width in batch["image_sizes"].tolist()]
    half = torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.precision == "bf16")

    def detect(images: Batch) -> Batch:
        with half:
            return model(images)

    replay = Captured(detect, device, graph_pool(device), contextlib.nullcontext) if device.type == "cuda" else detect

    @torch.inference_mode()
    def network() -> Batch:
        return replay(inputs)

    def whole() -> object:
        found = network()
        with torch.inference_mode():
            return model.to_image(found, batch["scales"], sizes)

    return whole, network


def torchvision_side(model: torch.nn.Module, batch: Batch, options: argparse.Namespace) -> Callable[[], object]:
    """torchvision's detector, which pastes its masks itself."""
    device = torch.device(options.device)
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    images, _ = as_torchvision({name: value.to(device) for name, value in batch.items()})
    half = torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.precision == "bf16")

    @torch.inference_mode()
    def run() -> object:
        with half:
            return model(images)

    return run


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mask_rcnn"], choices=sorted(DETECTORS))
    parser.add_argument("--batch", type=int, nargs="+", default=[2], help="images at once, one row each")
    parser.add_argument("--size", type=int, nargs=2, default=[480, 640], help="height and width")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    add_options(parser)
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True

    print(f"{'inference':<20} batch  size       {'network':>9} {'ours':>9} {'torchvision':>12} {'ratio':>6}  objects")
    rows = []
    for name in options.models:
        for count in options.batch:
            torch.manual_seed(0)
            pair = DETECTORS[name]()
            height, width = pair.size or options.size
            batch = make_scene(count, height, width, classes=pair.recipe.detector.num_classes)
            whole, network = our_sides(pair, batch, options)
            sides = {"ours": whole, "ours, network": network}
            if pair.torchvision is not None:
                sides["torchvision"] = torchvision_side(pair.torchvision, batch, options)
            seconds = take_turns(sides, options)
            peer = seconds.get("torchvision")
            found = int(network()["valid"].sum())
            print(
                f"{name:<20} {count:5d}  {f'{height}x{width}':<9}  {seconds['ours, network'] * 1e3:6.0f} ms "
                f"{seconds['ours'] * 1e3:6.0f} ms "
                + (f"{peer * 1e3:9.0f} ms {peer / seconds['ours']:5.2f}x" if peer else f"{'-':>12} {'-':>6}")
                + f"  {found}",
                flush=True,
            )
            rows.append(
                {"bench": "infer", "model": name, "batch": count, "size": [height, width], "objects": found}
                | {"precision": options.precision, "seconds": seconds}
            )
    append(rows, options)


if __name__ == "__main__":
    main()
