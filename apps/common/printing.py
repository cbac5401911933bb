"""What an evaluation prints: tables, where to look, and the lines that other tools read."""

import sys
import textwrap
from collections.abc import Mapping

import numpy as np

from apps.common.app import App
from det_coco import CocoIndex, Protocol
from det_coco.curves import chosen_names
from det_engine import RunDirectory
from det_engine.tables import table

Metrics = Mapping[str, Mapping[str, float]]

_NAME_WIDTH = 40
_COLUMNS = 80


def say(sentence: object) -> None:
    """Print a line; in a terminal folded at 80 columns, so that paths and numbers are not cut within."""
    text = str(sentence)
    if sys.stdout.isatty():
        text = textwrap.fill(text, _COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    print(text)


def print_metrics(metrics: Metrics) -> None:
    """Print a table with a line for each task, without the classes' own figures."""
    print(table({f"{task}/{name}": value for task, values in metrics.items() for name, value in values.items()}))


def print_classes(index: CocoIndex, protocol: Protocol, metrics: Metrics) -> None:
    """Print the objects and the AP of each class, in the order of the data.

    Args:
        index: the split.
        protocol: of the evaluation.
        metrics: what it found.
    """
    counts = np.bincount(index.labels[~index.crowd], minlength=index.num_classes)
    names = chosen_names(index, protocol)
    width = min(_NAME_WIDTH, max(map(len, names.values())))
    print(f"{'class':<{width}}{'objects':>9}" + "".join(f"{f'{task} AP':>14}" for task in metrics))
    for label, name in names.items():
        values = [values[f"AP/{name}"] for values in metrics.values()]
        shown = name if len(name) <= width else name[: width - 3] + "..."
        cells = "".join(f"{'-' if value == -1 else f'{value:.3f}':>14}" for value in values)
        print(f"{shown:<{width}}{counts[label]:>9,}{cells}")


def print_places(run: RunDirectory) -> None:
    """Say what to open, the page first."""
    if run.report.exists():
        print(f"Why the AP is what it is: {run.report}")
    if run.pictures.is_dir():
        print(f"Pictures, the truth at the left: {run.pictures}")
    print(f"Metrics: {run.results}\nDetections: {run.predictions}")


def print_next(app: App, weights: object) -> None:
    """Print the command that comes next: what was evaluated is used.

    Args:
        app: whose detector it is.
        weights: what names it, a run or a file.
    """
    print(f"Next: hatch run apps/{app.name} predict --weights {weights} IMAGE")


def print_final(images_per_second: float, metrics: Metrics) -> None:
    """Print the lines that the tools of Ascend's model zoo look for, and what they mean."""
    task = "segm" if "segm" in metrics else "bbox"
    print(f"\nFor the tools of Ascend's model zoo, whose accuracy is the {task} AP above:")
    print("------------------ Final result ------------------")
    print(f"Final Performance images/sec : {images_per_second:.2f}")
    print(f"Final Train Accuracy : {metrics[task]['AP']:.4f}")
