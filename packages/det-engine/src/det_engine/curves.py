"""The curves of a run as a picture."""

import io
from collections.abc import Collection

from det_engine.metrics import read_metrics
from det_engine.run import RunDirectory


def draw_curves(run: RunDirectory, metrics: Collection[str] | None = None) -> None:
    """Draw the losses of the log intervals and metrics of the evaluations into `curves.png`.

    Args:
        run: the run.
        metrics: names of those to draw, such as `bbox/AP`; None: all but details such as `bbox/AP/cat`.

    Raises:
        EngineError: the file cannot be written.
    """
    # Importing it takes a second that commands without training need not wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_metrics(run.metrics)
    training = [line for line in lines if line["kind"] == "train"]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    losses = [name for name in (training[0] if training else {}) if name.startswith("loss") and name != "loss_scale"]
    named = [name for name in (evaluations[0] if evaluations else {}) if name not in ("kind", "step", "seconds")]
    held_out = [name for name in named if name.startswith("validation/")]
    measured = [name for name in named if (name.count("/") < 2 if metrics is None else name in metrics)]
    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for name in losses:
        left.plot([line["step"] for line in training], _values(training, name), label=name)
    for name in held_out[:1]:
        left.plot([line["step"] for line in evaluations], _values(evaluations, name), "o--", label=name)
    for name in measured:
        if name not in held_out:
            right.plot([line["step"] for line in evaluations], _values(evaluations, name), "o-", label=name)
    for axes, title in ((left, "losses"), (right, "evaluations")):
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    if losses and all(value > 0 for line in training for value in _values([line], "loss")):
        left.set_yscale("log")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    run.write(run.curves, picture.getvalue())


def _values(lines: list[dict], name: str) -> list[float]:
    return [float("nan") if line.get(name) is None else line[name] for line in lines]
