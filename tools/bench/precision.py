"""What bfloat16 costs in learning and in finding: `tiny` on the embedded data, in float32 and under autocast.

    hatch run bench precision [--steps 300] [--threads 2]

Trains Mask R-CNN in float32 with two seeds, whose difference is the noise, and in bfloat16 with the first; prints the
mean loss of every fifth of the steps, and the AP that the first network has on held-out images in both formats.
"""

import argparse
import statistics
from dataclasses import replace
from typing import Literal

import torch
from learn import Ours, score

from apps.common.config import TwoStageRecipe
from apps.common.data import training_batches
from apps.common.splits import open_splits
from apps.mask_rcnn.config import RECIPES
from det_coco import CocoIndex
from det_engine import TrainStep, lr_at, seed_all
from det_models.inference import optimize_for_inference

PARTS = 5
Format = Literal["fp32", "bf16"]
RUNS: dict[str, tuple[Format, int]] = {
    "float32, seed 0": ("fp32", 0),
    "float32, seed 1": ("fp32", 1),
    "bfloat16, seed 0": ("bf16", 0),
}


def fit(recipe: TwoStageRecipe, index: CocoIndex, precision: Format, seed: int) -> tuple[Ours, list[float]]:
    """Train; the network and the loss of every step."""
    recipe = replace(recipe, train=replace(recipe.train, precision=precision, seed=seed))
    seed_all(seed)
    network = Ours(recipe)
    step = TrainStep(network.model.train(), recipe.solver, recipe.train, torch.device("cpu"))
    batches = training_batches(recipe, index, 0, pin_memory=False)
    losses = []
    for number in range(recipe.solver.steps):
        values = step(next(batches), number, lr_at(recipe.solver, number))
        losses.append(sum(v for name, v in zip(step.names, values.tolist(), strict=True) if name.startswith("loss")))
    return network, losses


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    recipe = RECIPES["tiny"]()
    solver = replace(recipe.solver, steps=options.steps, milestones=())
    recipe = replace(recipe, solver=solver, data=replace(recipe.data, workers=0)).resolved()
    splits = open_splits(None, recipe)
    part = max(options.steps // PARTS, 1)
    print(f"mean loss of {part} steps each")
    networks = []
    for name, (precision, seed) in RUNS.items():
        network, losses = fit(recipe, splits.train, precision, seed)
        networks.append(network)
        means = [statistics.mean(losses[first : first + part]) for first in range(0, part * PARTS, part)]
        print(f"{name:<18}" + "".join(f"{mean:8.4f}" for mean in means), flush=True)
    network = networks[0]
    trained = network.model
    for name, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):
        network.model = optimize_for_inference(trained, torch.device("cpu"), dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None):
            found = score(network, recipe, splits.val)
        print(f"{name:<18}" + "  ".join(f"{cell} {value:.4f}" for cell, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
