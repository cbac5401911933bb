"""The whole training step beside torchvision's: forward, losses, backward, SGD; batches resident on the device.

    hatch run bench train_step [--models mask_rcnn faster_rcnn ...] [--batch 2 16] [--size 800 1216]
                                [--device cuda] [--precision bf16]

Both sides have the same weights, frozen stages, norm layers, objects and number format, and channels-last weights. Ours
is the step of every training (`det_engine.TrainStep`), on CUDA captured as a graph (`--train.capture True`).
"""

import argparse
from collections.abc import Callable

import torch
from detectors import DETECTORS, Pair
from measuring import add_options, append, take_turns
from scenes import Batch, as_torchvision, make_scene, with_reduced_masks

from det_engine import SolverConfig, TrainSettings, TrainStep
from det_heads import Yolact

SOLVER = SolverConfig(base_lr=1e-5, momentum=0.9, weight_decay=1e-4, warmup_steps=0, milestones=(), steps=10**6)


def our_step(pair: Pair, batch: Batch, options: argparse.Namespace) -> Callable[[], object]:
    """A step of ours on the same batch every time."""
    device = torch.device(options.device)
    settings = TrainSettings(precision=options.precision, capture=device.type == "cuda" and not options.eager)
    make = TrainStep(pair.ours.train(), SOLVER, settings, device)
    resident = {name: value.to(device) for name, value in batch.items()}
    step = 0

    def run() -> object:
        nonlocal step
        step += 1
        return make(resident, step, SOLVER.base_lr)

    return run


def torchvision_step(model: torch.nn.Module, batch: Batch, options: argparse.Namespace) -> Callable[[], object]:
    """A step as torchvision's own training script makes it."""
    device = torch.device(options.device)
    model = model.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=SOLVER.base_lr,
        momentum=SOLVER.momentum,
        weight_decay=SOLVER.weight_decay,
    )
    images, targets = as_torchvision({name: value.to(device) for name, value in batch.items()})
    half = torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.precision == "bf16")

    def run() -> object:
        optimizer.zero_grad(set_to_none=True)
        with half:
            loss = torch.stack(list(model(images, targets).values())).sum()
        loss.backward()
        optimizer.step()
        return loss

    return run


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mask_rcnn"], choices=sorted(DETECTORS))
    parser.add_argument("--batch", type=int, nargs="+", default=[2], help="images a step, one row each")
    parser.add_argument("--size", type=int, nargs=2, default=[480, 640], help="height and width")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "tf32", "bf16"])
    parser.add_argument("--eager", action="store_true", help="no graph on CUDA")
    add_options(parser)
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True

    print(f"{'training step':<20} batch  size       {'ours':>9} {'torchvision':>12} {'ratio':>6}   images/s")
    rows = []
    for name in options.models:
        for count in options.batch:
            torch.manual_seed(0)
            pair = DETECTORS[name]()
            height, width = pair.size or options.size
            classes = pair.recipe.detector.num_classes
            batch = make_scene(count, height, width, classes=classes)
            sides = {"ours": our_step(pair, own_masks(pair, batch), options)}
            if pair.torchvision is not None:
                sides["torchvision"] = torchvision_step(pair.torchvision, batch, options)
            seconds = take_turns(sides, options, calls=1 if options.device == "cpu" else 10)
            peer = seconds.get("torchvision")
            print(
                f"{name:<20} {count:5d}  {f'{height}x{width}':<9}  {seconds['ours'] * 1e3:6.0f} ms "
                + (f"{peer * 1e3:9.0f} ms {peer / seconds['ours']:5.2f}x" if peer else f"{'-':>12} {'-':>6}")
                + f"   {count / seconds['ours']:.1f}",
                flush=True,
            )
            rows.append(
                {"bench": "train_step", "model": name, "batch": count, "size": [height, width]}
                | {"precision": options.precision, "eager": options.eager, "seconds": seconds}
            )
    append(rows, options)


def own_masks(pair: Pair, batch: Batch) -> Batch:
    """The batch with masks in the form that our detector learns from."""
    if isinstance(pair.ours, Yolact):
        return with_reduced_masks(batch, pair.ours.bitmap_sizes(*batch["images"].shape[-2:]))
    return batch


if __name__ == "__main__":
    main()
