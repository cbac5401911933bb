"""A CPU in one table: inference, training steps and YOLACT in float32 and bfloat16, and memory, beside the peers.

    hatch run bench cpu [--rows inference training ...] [--size 480 640] [--batch 2] [--threads 1] [--original PATH]

All sides of a row take turns. With one thread the figures are CPU seconds, which other work on the machine hardly
changes; with more they are seconds. YOLACT's peer is a checkout of the original at PATH (see `yolact`), and is left out
without one. Memory is the peak above the loaded libraries of a process that does the work three times, at
`--memory-size`: ours with the allocator that the apps set, torchvision's with the system's. `processes` is what each of
many has before its first step, with the same annotation file open; pages that they share are divided by their owners.
"""

import argparse
import contextlib
import copy
import ctypes
import gc
import multiprocessing
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import yolact
from detectors import CLASSES, DETECTORS, Pair, rcnn
from index import write_file
from infer import our_sides, torchvision_side
from measuring import add_options, append, peak_memory, take_turns
from scenes import make_scene
from train_step import our_step, own_masks, torchvision_step

from apps.common import process
from apps.mask_rcnn.config import RECIPES as MASK_RCNN
from apps.yolact.config import RECIPES as YOLACT
from det_backbones import ResNet
from det_coco import CocoIndex
from det_engine import TrainStep
from det_heads import Yolact
from det_models import build
from det_models.checkpoints import load_reference

Rows = list[dict[str, Any]]
PRECISIONS = ("fp32", "bf16")
SIDES = ("ours fp32", "ours bf16", "peer fp32", "peer bf16")


def with_precision(options: argparse.Namespace, precision: str) -> argparse.Namespace:
    """The options that the other benches take."""
    return argparse.Namespace(**vars(options) | {"precision": precision, "eager": True})


def compare(work: str, sides: Mapping[str, Callable[[], object]], options: argparse.Namespace) -> Rows:
    """Time the sides of a row in turns, and print it."""
    seconds = take_turns(sides, options)
    cells = "".join(f"{seconds[side]:10.3f}s" if side in seconds else f"{'-':>11}" for side in SIDES)
    ours = seconds["ours fp32"]
    ratios = [ours / seconds["ours bf16"]]
    ratios += (
        [seconds["peer fp32"] / ours, seconds["peer fp32"] / seconds["ours bf16"]] if "peer fp32" in seconds else []
    )
    print(f"{work:<26}{cells}  " + "".join(f"{ratio:8.2f}x" for ratio in ratios), flush=True)
    return [{"bench": "cpu", "work": work, "batch": options.batch, "size": options.size, "seconds": seconds}]


def inference(options: argparse.Namespace) -> Rows:
    """Mask R-CNN, from images to masks as run lengths; one image."""
    pair = DETECTORS["mask_rcnn"]()
    batch = make_scene(1, *options.size, classes=pair.recipe.detector.num_classes)
    assert pair.torchvision is not None
    sides: dict[str, Callable[[], object]] = {}
    for precision in PRECISIONS:
        own = with_precision(options, precision)
        sides[f"ours {precision}"] = our_sides(pair, batch, own)[0]
        sides[f"peer {precision}"] = torchvision_side(pair.torchvision, batch, own)
    return compare("Mask R-CNN, one image", sides, options)


def training(options: argparse.Namespace) -> Rows:
    """A training step of Mask R-CNN."""
    sides: dict[str, Callable[[], object]] = {}
    for precision in PRECISIONS:
        pair, own = DETECTORS["mask_rcnn"](), with_precision(options, precision)
        batch = make_scene(options.batch, *options.size, classes=pair.recipe.detector.num_classes)
        assert pair.torchvision is not None
        sides[f"ours {precision}"] = our_step(pair, batch, own)
        sides[f"peer {precision}"] = torchvision_step(pair.torchvision, batch, own)
    return compare(f"Mask R-CNN, step of {options.batch}", sides, options)


def yolact_rows(options: argparse.Namespace) -> Rows:
    """YOLACT as its original trains it on few images: a picture with its masks, and a training step."""
    recipe = YOLACT["yolact_resnet50"]()
    recipe = replace(recipe, backbone=replace(recipe.backbone, norm="frozen_bn"))
    batch = make_scene(options.batch, options.yolact, options.yolact, classes=recipe.detector.num_classes)
    first = {name: value[:1] for name, value in batch.items()}
    theirs = None if options.original is None else yolact.original(options.original, recipe)
    pictures: dict[str, Callable[[], object]] = {}
    steps: dict[str, Callable[[], object]] = {}
    with torch.no_grad():
        source = cast("Yolact", build(recipe.model()))
        # Initial weights see nothing at all, and time nothing.
        if theirs is None:
            cast(Any, source).head.classes.weight.mul_(100)
        else:
            theirs.net.prediction_layers[0].conf_layer.weight.mul_(100)
            load_reference(source, theirs.net.state_dict(), "yolact")
    for precision in PRECISIONS:
        pair = Pair(recipe=recipe, ours=copy.deepcopy(source), torchvision=None)
        pictures[f"ours {precision}"] = our_sides(pair, first, with_precision(options, precision))[0]
        steps[f"ours {precision}"] = our_step(pair, own_masks(pair, batch), with_precision(options, precision))
    if theirs is not None:
        pixels = source.normalize(batch).contiguous()
        pictures["peer fp32"] = yolact.original_picture(theirs, pixels[:1])
        steps["peer fp32"] = yolact.original_step(theirs, pixels, batch, recipe)
    found = compare("YOLACT, one picture", pictures, options)
    return found + compare(f"YOLACT, step of {options.batch}", steps, options)


def memory(options: argparse.Namespace) -> Rows:
    """Peaks of a training step and of inference in processes of their own."""
    rows: Rows = []
    for work, count in (("training", options.batch), ("inference", 1)):
        scene = {"size": options.memory_size, "count": count}
        sides = ["ours", "torchvision", *(["ours recomputed"] if work == "training" else [])]
        measured = {side: in_process(peak_of, work, side, options.threads, scene) for side in sides}
        found = {side: peak for side, (_, peak) in measured.items()}
        ratio = found["ours"] / found["torchvision"]
        print(
            f"memory of {work + ',':<11} {count} image(s) of {options.memory_size[0]} x {options.memory_size[1]}: ours "
            f"{found['ours']:.0f} MiB, torchvision's {found['torchvision']:.0f} MiB, {ratio:.2f} of it",
            flush=True,
        )
        if work == "training":
            slower = measured["ours recomputed"][0] / measured["ours"][0]
            peak = found["ours recomputed"]
            print(
                f"  with stages computed again (--backbone.recompute True): {peak:.0f} MiB, "
                f"{peak / found['torchvision']:.2f} of it, in {slower:.2f}x our time",
                flush=True,
            )
        row = {"bench": "cpu", "work": f"memory of {work}", "batch": count, "size": options.memory_size}
        rows.append(row | {"mebibytes": found})
    return rows


def in_process(function: Callable[..., tuple[float, float]], *arguments: Any) -> tuple[float, float]:
    """What a function returns in a new process that has imported this module."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_of(work: str, side: str, threads: int, scene: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds of a call in float32, and the MiB above the loaded libraries that this process has at most.

    Args:
        work: "training" or "inference".
        side: "ours", "ours recomputed" (the stages of its backbone) or "torchvision".
        threads: Of the CPU; with one the seconds are the CPU's.
        scene: Images: `count` of `size`, with `objects` of `classes`.
    """
    torch.set_num_threads(threads)
    options = argparse.Namespace(device="cpu", threads=threads, precision="fp32", eager=True, warmup=1, repeat=2)
    before = peak_memory(reset=True)
    classes = scene.get("classes", CLASSES)
    pair = rcnn(mask=True, classes=classes)
    batch = make_scene(scene["count"], *scene["size"], classes=classes, objects=scene.get("objects", 8))
    peer = pair.torchvision
    assert peer is not None
    if side == "ours recomputed":
        cast(ResNet, pair.ours.get_submodule("backbone.body")).recompute = True
    if side != "torchvision":
        act = our_step(pair, batch, options) if work == "training" else our_sides(pair, batch, options)[0]
    else:
        act = (torchvision_step if work == "training" else torchvision_side)(peer, batch, options)
    del pair, peer, batch  # what the work does not need
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    if side != "torchvision":
        process.tune()
    peak_memory(reset=True)
    seconds = take_turns({side: act}, options)[side]
    return seconds, peak_memory() - before


def processes(options: argparse.Namespace) -> Rows:
    """What each of many processes that train together has before the first step."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, context.Manager() as manager:
        os.environ["DET_CACHE"] = folder
        file = Path(folder) / "instances.json"
        write_file(file, options.annotated, 7 * options.annotated, 2)
        CocoIndex.load(file, file.parent, check_images=False)
        barrier = manager.Barrier(options.processes, timeout=600)
        with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
            waiting = [pool.submit(before_first_step, file, barrier) for _ in range(options.processes)]
            found = [future.result() for future in waiting]
    mean = sum(found) / len(found)
    print(
        f"{options.processes} processes before the first step: {mean:.0f} MiB each above the libraries, "
        f"{max(found):.0f} MiB at most"
    )
    return [{"bench": "cpu", "work": "processes", "processes": options.processes, "mebibytes": {"ours": mean}}]


def before_first_step(file: Path, barrier: Any) -> float:
    """MiB of this process's own and of its part of shared pages, above the loaded libraries."""
    process.tune()
    torch.set_num_threads(1)
    barrier.wait()
    before = proportional()
    barrier.wait()
    recipe = MASK_RCNN["mask_rcnn_r50_fpn_1x"]()
    kept = CocoIndex.load(file, file.parent, check_images=False)
    step = TrainStep(build(recipe.model()), recipe.solver, recipe.train, torch.device("cpu"))
    barrier.wait()  # all have the pages before any is asked for its part of them
    more = proportional() - before
    barrier.wait()
    del kept, step
    return more


def proportional() -> float:
    """This process's part of all its pages, each divided by those who have it, in MiB."""
    return int(re.findall(r"Pss:\s+(\d+)", Path("/proc/self/smaps_rollup").read_text())[0]) / 1024


ROWS: dict[str, Callable[[argparse.Namespace], Rows]] = {
    "inference": inference,
    "training": training,
    "yolact": yolact_rows,
    "memory": memory,
    "processes": processes,
}


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--batch", type=int, default=2, help="images a training step")
    parser.add_argument("--size", type=int, nargs=2, default=[480, 640], help="height and width")
    parser.add_argument("--memory-size", type=int, nargs=2, default=[800, 1216], help="of the rows of memory")
    parser.add_argument("--yolact", type=int, default=550, help="side of YOLACT's images")
    parser.add_argument("--original", type=Path, help="checkout of YOLACT's original")
    parser.add_argument("--processes", type=int, default=16, help="that train together")
    parser.add_argument("--annotated", type=int, default=30000, help="images of their annotation file")
    add_options(parser)
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)

    unit = "CPU seconds of one thread" if options.threads == 1 else f"seconds, {options.threads} threads"
    print(f"{unit}; load of the machine {os.getloadavg()[0]:.1f}")
    print(f"{'':<26}" + "".join(f"{side:>11}" for side in SIDES) + f"  {'bf16':>9}{'peer':>9}{'bf16:peer':>9}")
    rows: Rows = []
    for name in options.rows:
        torch.manual_seed(0)
        rows += ROWS[name](options)
    append(rows, options)


if __name__ == "__main__":
    main()
