"""``replay``: a training step that went wrong, once more."""

from dataclasses import dataclass
from pathlib import Path

import tyro

import det_engine
from apps.common.app import App
from apps.common.weights import read_config
from det_engine import resolve_device
from det_engine.failure import load_failure
from det_engine.options import override


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """Options of `replay`."""

    file: tyro.conf.Positional[Path]
    """What the broken step left: failures/step-N.pt in the run's directory."""
    device: str = "auto"
    """auto, cpu, cuda or npu."""


def replay(app: App, args: list[str]) -> None:
    """Repeat a training step that went wrong, from the file it left."""
    options = override(ReplayOptions(file=tyro.MISSING), args, f"apps/{app.name} replay", replay.__doc__)
    device = resolve_device(options.device)
    finding = det_engine.replay(
        options.file, lambda config: app.network(read_config(app, {"config": config}, options.file)[0]), device
    )
    step = load_failure(options.file)["step"] + 1
    print(f"Step {step}: " + ", ".join(f"{name} = {value:.6g}" for name, value in finding.terms.items()))
    print("\n".join(finding.sentences()))
