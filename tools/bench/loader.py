"""The loader of a training beside a torch DataLoader with torchvision's datasets and transforms: images per second.

    hatch run bench loader --data DIR [--workers 0] [--images 64] [--size 800] [--batch 4] [--jitter]

Both read the same JPEG files of a data set in the COCO layout, resize the shorter side, mirror half of them, and end at
batches with boxes, labels and masks in main memory. With --jitter both do large-scale jitter of 0.1 to 2 on squares of
--size, and paste objects: ours of a further picture of the data set, torchvision's of the next one of the batch.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measuring import add_options, append
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from apps.common.data import training_batches
from apps.common.splits import open_splits
from apps.mask_rcnn.config import RECIPES
from det_coco import CocoIndex


def ours(options: argparse.Namespace) -> Iterator[object]:
    """Our batches: uint8 images padded to a bucket, polygons."""
    recipe = RECIPES["mask_rcnn_r50_fpn_1x"]()
    data = replace(
        recipe.data, batch=options.batch, train_sizes=(options.size,), workers=options.workers, drop_excess=True
    )
    if options.jitter:
        jitter = replace(data.augment, scale_jitter=(0.1, 2.0), copy_paste=1.0)
        data = replace(data, max_size=options.size, augment=jitter, max_instances=200)
    recipe = replace(recipe, data=data).resolved()
    return training_batches(recipe, open_splits(options.data, recipe).train, 0, pin_memory=False)


def torchvisions(options: argparse.Namespace, index: CocoIndex) -> Iterator[object]:
    """Lists of float images and targets, as torchvision's reference training makes them."""
    square = (options.size, options.size)
    resize: list[v2.Transform] = [v2.Resize(options.size, max_size=1333)]
    if options.jitter:
        resize = [v2.ScaleJitter(square, (0.1, 2.0)), v2.RandomCrop(square, pad_if_needed=True, fill=124)]
    transforms = v2.Compose(
        [
            v2.ToImage(),
            *resize,
            v2.RandomHorizontalFlip(0.5),
            v2.ToDtype(torch.float, scale=True),
            v2.SanitizeBoundingBoxes(),
        ]
    )
    dataset = CocoDetection(str(index.image_folder), str(index.annotation_file), transforms=transforms)
    keep = [position for position, identifier in enumerate(dataset.ids) if dataset.coco.getAnnIds(identifier)]
    wrapped = wrap_dataset_for_transforms_v2(dataset, target_keys=("boxes", "labels", "masks"))
    loader = torch.utils.data.DataLoader(
        torch.utils.data.Subset(wrapped, keep),
        batch_size=options.batch,
        shuffle=True,
        num_workers=options.workers,
        collate_fn=_pasted if options.jitter else _as_tuple,
    )
    while True:
        yield from loader


def _as_tuple(samples: list[Any]) -> tuple[Any, ...]:
    return tuple(zip(*samples, strict=True))


def _pasted(samples: list[Any]) -> tuple[Any, ...]:
    """Simple Copy-Paste with the masks of the next image of a batch, as torchvision's references paste."""
    pasted = []
    for (image, target), (other, source) in zip(samples, samples[1:] + samples[:1], strict=True):
        chosen = torch.rand(len(source["masks"])) < 0.5
        masks = source["masks"][chosen].as_subclass(torch.Tensor).bool()
        cover = masks.any(dim=0)
        rest = target["masks"].as_subclass(torch.Tensor).bool() & ~cover
        seen = rest.flatten(1).any(dim=1)
        joined = torch.cat((rest[seen], masks))
        labels = torch.cat((target["labels"][seen], source["labels"][chosen]))
        boxes = masks_to_boxes(joined)
        pasted.append((torch.where(cover, other, image), {"boxes": boxes, "labels": labels, "masks": joined}))
    return _as_tuple(pasted)


def speeds(sides: dict[str, Iterator[object]], options: argparse.Namespace) -> dict[str, float]:
    """Images per second of each side after its first batch, which starts the workers.

    Without workers the sides take turns; with them each has the machine for itself, as they would load ahead.
    """
    steps = max(1, options.images // options.batch)
    order = [(name, turn) for name in sides for turn in range(steps)]
    if options.workers == 0:
        order.sort(key=lambda one: one[1])
    taken: dict[str, float] = {}
    for name, _ in order:
        if name not in taken:
            next(sides[name])
            taken[name] = 0.0
        began = time.perf_counter()
        next(sides[name])
        taken[name] += time.perf_counter() - began
    return {name: steps * options.batch / seconds for name, seconds in taken.items()}


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data set in the COCO layout")
    parser.add_argument("--workers", type=int, default=0, help="processes that load ahead; 0: this one loads")
    parser.add_argument("--images", type=int, default=64, help="timed images")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=800, help="shorter side")
    parser.add_argument("--jitter", action="store_true", help="large-scale jitter and copy-paste")
    add_options(parser)
    options = parser.parse_args(args)
    index = open_splits(options.data, RECIPES["mask_rcnn_r50_fpn_1x"]()).train
    found = speeds({"ours": ours(options), "torchvision": torchvisions(options, index)}, options)
    work = "jitter, copy-paste" if options.jitter else "loading"
    print(f"{work:<20} {'ours':>10} {'torchvision':>12} {'ratio':>6}   images/s, {options.workers} workers")
    ratio = found["ours"] / found["torchvision"]
    print(f"{options.size:<20} {found['ours']:10.1f} {found['torchvision']:12.1f} {ratio:5.2f}x")
    row = {"bench": "loader", "work": work, "size": options.size, "workers": options.workers}
    append([{**row, "images_per_second": found}], options)


if __name__ == "__main__":
    main()
