"""A small training that the tests run, in their process or, as a script, in another one.

python small.py RUN_DIRECTORY STEPS SECONDS_A_STEP [--resume] [--hang-in-evaluation]
"""

import sys
import time
from pathlib import Path

import torch
from torch import nn

from det_engine import RunDirectory, SolverConfig, TrainSettings, checkpoint, cli, train
from testing.comparing import differences


class Net(nn.Module):
    """Two losses, batch statistics (buffers) and dropout (random numbers)."""

    def __init__(self, width=16, classes=3):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(width, classes)

    def forward(self, batch):
        logits = self.head(self.body(batch["x"]))
        if not self.training:
            return logits
        return {
            "loss_class": nn.functional.cross_entropy(logits, batch["y"]),
            "loss_size": 0.01 * logits.float().square().mean(),
        }


def make_net(seed=0, **kwargs):
    torch.manual_seed(seed)
    return Net(**kwargs)


def make_batch(step, size=4):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(size, 8, generator=generator)
    # A draw from the global generator too, as careless data code does.
    x = x + 0.1 * torch.rand(())
    return {"x": x, "y": (x[:, 0] > 0).long(), "image_ids": 100 * step + torch.arange(size)}


def make_batches(step, seconds=0.0):
    while True:
        time.sleep(seconds)
        yield make_batch(step)
        step += 1


def make_solver(steps=40, **changes):
    fields = {"base_lr": 0.1, "warmup_steps": 8, "milestones": (20, 30), "steps": steps, "clip_norm": 5.0}
    return SolverConfig(**{**fields, **changes})


def make_evaluate(model, seen=None):
    def evaluate():
        # The training's random numbers must not move with these.
        torch.rand(7)
        batch = make_batch(10**6, size=64)
        accuracy = float((model(batch).argmax(1) == batch["y"]).float().mean())
        if seen is not None:
            seen.append(accuracy)
        return {"task": {"accuracy": accuracy}}

    return evaluate


def checkpoint_differences(one, two):
    """Where two checkpoint files differ in more than the time they took."""
    return differences(checkpoint.load(one), checkpoint.load(two), skip=("seconds",))


def make_run(path):
    return RunDirectory.create(path, config={}, environment={"written_by": "det-engine"})


def main(path, steps, seconds, *flags):
    run = RunDirectory.open(path) if "--resume" in flags else make_run(path)
    model = make_net()
    evaluate = make_evaluate(model)
    if "--hang-in-evaluation" in flags:

        def evaluate():
            Path(path, "evaluating").touch()
            time.sleep(600)

    def batches(step):
        Path(path, "asked").touch()
        for batch in make_batches(step, float(seconds)):
            Path(path, "started").touch()
            yield batch

    train(
        model,
        solver=make_solver(int(steps)),
        batches=batches,
        batch_size=4,
        device=torch.device("cpu"),
        run=run,
        settings=TrainSettings(log_interval=7, checkpoint_interval=5, evaluation_interval=10, display="plain"),
        evaluate=evaluate,
        resume=run.path if "--resume" in flags else None,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(cli.run_main(lambda: main(*sys.argv[1:])))
