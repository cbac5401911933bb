"""``replay``: a training step that went wrong, once more."""

import tyro

import det_engine
from apps.common.app import App
from apps.common.commands import read_options
from apps.common.learning_options import ReplayOptions
from apps.common.weights import read_config
from det_engine import resolve_device
from det_engine.failure import load_failure


def replay(app: App, args: list[str]) -> None:
    """Repeat a training step that went wrong, from the file it left."""
    options = read_options(app, "replay", args, ReplayOptions(file=tyro.MISSING))
    device = resolve_device(options.device)
    finding = det_engine.replay(
        options.file, lambda config: app.network(read_config(app, {"config": config}, options.file)[0]), device
    )
    step = load_failure(options.file)["step"] + 1
    print(f"Step {step}: " + ", ".join(f"{name} = {value:.6g}" for name, value in finding.terms.items()))
    print("\n".join(finding.sentences()))
