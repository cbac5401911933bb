"""What the cascade gains: Cascade Mask R-CNN beside Mask R-CNN, both trained by their app's own command.

    hatch run bench cascade [--seeds 0 1 2] [--data DIR --recipe NAME] [--output DIR]

By default both learn the embedded data with the recipe `tiny`. A run that is in the output folder already is read, not
repeated, so a comparison that was interrupted goes on.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

APPS = ("mask_rcnn", "cascade_rcnn")
CELLS = (("bbox", "AP"), ("bbox", "AP50"), ("bbox", "AP75"), ("segm", "AP"), ("segm", "AP50"))


def train(app: str, seed: int, output: Path, options: list[str]) -> dict[str, dict[str, float]]:
    """Run an app's `train`, unless it has been run; its results on the validation split."""
    results = output / "results.json"
    if not results.exists():
        command = [sys.executable, "-m", f"apps.{app}", "train", "--output", str(output), "--train.seed", str(seed)]
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    return json.loads(results.read_text())


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, help="data set in the COCO layout; default: the embedded one")
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--output", type=Path, default=Path("runs/bench_cascade"), help="folder of the runs")
    options = parser.parse_args(args)

    more = ["--recipe", options.recipe, *(["--data", str(options.data)] if options.data else [])]
    print(f"{options.recipe}\n{'':<14}seed  box AP   AP50   AP75  mask AP  AP50")
    table: dict[str, list[list[float]]] = {app: [] for app in APPS}
    for seed in options.seeds:
        for app in APPS:
            found = train(app, seed, options.output / f"{options.recipe}_{app}_{seed}", more)
            table[app].append([found[task][name] for task, name in CELLS])
            print(f"{app:<14}{seed:4d}  {_cells(table[app][-1])}", flush=True)
    for app, rows in table.items():
        print(f"{app:<14}mean  {_cells([statistics.mean(column) for column in zip(*rows, strict=True)])}")


def _cells(row: list[float]) -> str:
    return "  ".join(f"{value:.3f}" for value in row)


if __name__ == "__main__":
    main()
