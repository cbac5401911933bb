"""What a run says of itself, as sections of a page: settings, curves over the steps, environment."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.common.app import App
from apps.common.config import to_dict
from det_coco.page import Html, Section, facts, folded, grid, table, text
from det_coco.plots import COLOURS, axes, logarithmic, plot
from det_engine import RunDirectory
from det_engine.metrics import read_metrics

Line = Mapping[str, Any]
_FEW = 30
"""Points up to which each is marked."""


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file of a run; empty where it is missing or broken, as after a crash."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def flat(content: Any, name: str = "") -> dict[str, Any]:
    """The values of nested mappings by dotted name, as options have it: `solver.base-lr`."""
    if not isinstance(content, Mapping):
        return {name: content}
    parts = {f"{name}.{key}" if name else str(key): value for key, value in content.items()}
    return {
        inner.replace("_", "-"): value for outer, part in parts.items() for inner, value in flat(part, outer).items()
    }


def differing(settings: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Settings that are not the same everywhere: the name, then each value as text.

    Args:
        settings: of each run, as `flat` gives them.
    """
    names = dict.fromkeys(name for values in settings.values() for name in values)
    rows = [(name, *[_shown(values, name) for values in settings.values()]) for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def _shown(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name]) if name in values else "not there"


def run_sections(app: App, run: RunDirectory) -> list[Section]:
    """Sections about a training: what was set, how it went, what it ran on.

    Args:
        app: the app that the command was given to; recipes of others are not compared.
        run: the run; whatever is missing of it is left out.
    """
    lines = read_metrics(run.metrics)
    if not lines:
        return []
    return [
        Section(title="Training", pieces=[_progress(lines), *training_plots({"": lines})]),
        Section(title="Settings", pieces=_settings(app, read_json(run.config))),
        Section(title="Environment", pieces=[facts(_texts(flat(read_json(run.environment))))]),
    ]


def _progress(lines: Sequence[Line]) -> Html:
    training = [line for line in lines if line["kind"] == "train"]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    speeds = sorted(line["images_per_second"] for line in training if line.get("images_per_second"))
    memory = [line["peak_memory_mib"] for line in training if line.get("peak_memory_mib")]
    values: dict[str, Any] = {"steps": max(line["step"] for line in lines), "evaluations": len(evaluations)}
    if speeds:
        values["images per second, median"] = f"{speeds[len(speeds) // 2]:.1f}"
    if memory:
        values["peak memory"] = f"{max(memory):,.0f} MiB"
    return facts(values)


def training_plots(runs: Mapping[str, Sequence[Line]]) -> list[Html]:
    """Losses, metrics, rate and speed over the steps; of several runs each has its colour.

    Args:
        runs: by name, the lines of their `metrics.jsonl`.
    """
    first = [line for lines in runs.values() for line in lines]
    metrics = list(dict.fromkeys(name for line in first for name in line if name.endswith("/AP")))
    plots = [
        _over_steps(runs, "loss", ["loss", "validation/loss"], log=True),
        _over_steps(runs, "AP", metrics),
        _over_steps(runs, "learning rate", ["learning_rate"]),
        _over_steps(runs, "images per second", ["images_per_second"]),
    ]
    parts = sorted({name for line in first for name in line if name.startswith("loss_") and name != "loss_scale"})
    if len(runs) == 1 and parts:
        plots.insert(1, _over_steps(runs, "parts of the loss", parts, log=True))
    return [grid(piece for piece in plots if piece)]


def _over_steps(runs: Mapping[str, Sequence[Line]], title: str, names: Sequence[str], *, log: bool = False) -> Html:
    """One plot; empty where no line has any of the names."""
    drawn = axes(title, "step")
    styles = ("-", "--", ":", "-.")
    lowest = 1.0
    for place, (run, lines) in enumerate(runs.items()):
        for number, name in enumerate(names):
            points = [(line["step"], line[name]) for line in lines if isinstance(line.get(name), int | float)]
            if points:
                colour = COLOURS[(place if len(runs) > 1 else number) % len(COLOURS)]
                label = " ".join(filter(None, (run, name if len(names) > 1 else "")))
                style = styles[number % len(styles)] if len(runs) > 1 else "-"
                marker = "." if len(points) < _FEW else ""
                drawn.plot(*zip(*points, strict=True), style, marker=marker, color=colour, label=label or None)
                lowest = min(lowest, *[value for _, value in points])
    if log and lowest > 0:
        logarithmic(drawn)
    return plot(drawn) if drawn.lines else Html()


def _settings(app: App, config: Mapping[str, Any]) -> list[Html]:
    recipe = config.get("recipe")
    if not isinstance(recipe, Mapping):
        return [text("The run does not say how it was configured.")]
    named = {"app": config.get("app"), "recipe": recipe.get("name"), "data": config.get("data")}
    named["fingerprint of the training data"] = config.get("data_fingerprint")
    pieces = [facts({name: str(value) for name, value in named.items() if value is not None})]
    known = app.recipes.get(str(recipe.get("name"))) if config.get("app") == app.name else None
    if known is not None:
        # Through JSON, as the run's own settings have gone.
        own = flat(json.loads(json.dumps(to_dict(known()))))
        rows = differing({"recipe": own, "run": flat(recipe)})
        pieces.append(
            table(["setting", "recipe", "this run"], rows) if rows else text("All settings are those of the recipe.")
        )
    return [*pieces, folded("All settings", [facts(_texts(flat(recipe)))])]


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
