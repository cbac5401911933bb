"""What came out of a sweep: a table, a picture, and the command for the best values."""

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.common.app import App
from det_coco.outputs import whole_file

if TYPE_CHECKING:
    import optuna

_SHOWN = 10
"""Trials in the table that is printed; the file has all."""


def shown_values(values: Mapping[str, Any]) -> str:
    """Values in a line, such as `lr 0.0123  size 1.25`."""
    return "  ".join(f"{name} {value:.3g}" for name, value in values.items())


def print_results(app: App, study: "optuna.Study", folder: Path, metric: str) -> None:
    """Print the best trials and how to train with the best values; write `trials.csv` and `sweep.png`.

    Args:
        app: whose trainings they are.
        study: the trials.
        folder: of the sweep.
        metric: what was maximised.
    """
    from optuna.trial import TrialState

    measured = [trial for trial in study.trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    ranked = sorted(measured, key=lambda trial: -_value(trial))
    names = list(dict.fromkeys(name for trial in measured for name in trial.params))
    rows = [
        [trial.number, f"{_value(trial):.4f}", *(f"{trial.params[name]:.3g}" for name in names), _end(trial)]
        for trial in ranked
    ]
    header = ["trial", metric, *names, ""]
    _print_table([header, *rows[:_SHOWN]])
    text = io.StringIO()
    csv.writer(text).writerows([[*header[:-1], "ended"], *rows])
    for name, content in (("trials.csv", text.getvalue().encode()), ("sweep.png", _picture(measured, names, metric))):
        with whole_file(folder / name) as file:
            file.write(content)
    print(f"All trials: {folder / 'trials.csv'}\nPicture: {folder / 'sweep.png'}")
    if ranked:
        best = folder / f"trial-{ranked[0].number:03d}"
        print(f"Best: {best}\nIts options: {shlex.join(ranked[0].user_attrs['options'])}")
        print(f"Next: hatch run apps/{app.name} train --config {best / 'config.json'}")


def _value(trial: Any) -> float:
    """The best evaluation, also of a training that was ended early."""
    return max([*trial.intermediate_values.values(), *([] if trial.value is None else [trial.value])])


def _end(trial: Any) -> str:
    return "" if trial.state.name == "COMPLETE" else f"ended at step {max(trial.intermediate_values, default=0)}"


def _print_table(rows: Sequence[Sequence[Any]]) -> None:
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell!s:>{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _picture(trials: Sequence[Any], names: Sequence[str], metric: str) -> bytes:
    """The metric over the trials, and over each value that was varied; PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(4 * (1 + len(names)), 4), layout="constrained")
    FigureCanvasAgg(figure)
    plots = figure.subplots(1, 1 + len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(plots, ("trial", *names), strict=True):
        for early, style in ((False, "o"), (True, "x")):
            chosen = [trial for trial in trials if (trial.state.name != "COMPLETE") is early]
            places = [trial.number if name == "trial" else trial.params[name] for trial in chosen]
            axes.plot(places, list(map(_value, chosen)), style, label="ended early" if early else "to the end")
        axes.set_xlabel(name)
        if name in ("lr", "anchors"):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    best, highest = [], float("-inf")
    for trial in trials:
        highest = max(highest, _value(trial))
        best.append((trial.number, highest))
    plots[0].step([number for number, _ in best], [value for _, value in best], where="post", label="best so far")
    plots[0].set_ylabel(metric)
    plots[0].legend(fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    return picture.getvalue()
