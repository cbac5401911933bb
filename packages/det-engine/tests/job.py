"""A training in one or several processes, as the tests start it.

python job.py PROCESSES RUN_DIRECTORY CASE [--resume]

Cases: `equal` several short trainings; `killed`, `hanging`, `failing`: process 1 does so in its third step; `slow`.
"""

import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from det_engine import RunDirectory, SolverConfig, TrainSettings, cli, distributed, train


class Net(nn.Module):
    """A loss over a number of rows that follows from the data, and random numbers; both know of parts."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 1)
        self.norm = nn.GroupNorm(4, 16)
        self.part = (0, 1, lambda number: number)

    @contextmanager
    def as_part(self, *part):
        before, self.part = self.part, part
        yield
        self.part = before

    def forward(self, batch):
        index, count, total = self.part
        x, rows = batch["x"], len(batch["x"])
        noise = torch.rand(rows * count, 6)[index * rows : (index + 1) * rows]
        errors = (self.second(self.norm(self.first(x + 0.1 * noise)).relu())[:, 0].float() - batch["y"]).square()
        number = total(batch["used"].sum()).clamp(min=1 / count)
        return {"loss_used": (errors * batch["used"]).sum() / number, "loss_all": 0.1 * errors.mean()}


def batch_of(step, images=8):
    """The images of a step; which of them a process sees follows from its rank."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(images, 6, generator=generator)
    used = torch.rand(images, generator=generator) < 0.4
    whole = {"x": x, "y": x[:, 0] * x[:, 1], "used": used, "image_ids": 100 * step + torch.arange(images)}
    share = images // distributed.world_size()
    own = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    return {name: value[own] for name, value in whole.items()}


CASES = {
    "plain": ({}, {}),
    "accumulated": ({"accumulate": 2}, {}),
    "captured": ({"capture": True}, {"clip_norm": 0.5}),
    "O2": ({"precision": "O2", "loss_scale": 128.0}, {"ema_decay": 0.5}),
    "adamw": ({}, {"optimizer": "adamw", "base_lr": 0.01, "ema_decay": 0.9}),
}


def fit(path, case, *, steps=6, resume=False, batches=None, seconds=0.0, **changes):
    """Train; the run's directory."""

    def usual(step):
        while True:
            time.sleep(seconds)
            yield batch_of(step)
            step += 1

    settings, solver = CASES[case]
    torch.manual_seed(0)
    model = Net()
    run = RunDirectory(path)
    if distributed.is_main() and not resume:
        RunDirectory.create(path, config={}, environment={"written_by": "det-engine"})
    distributed.share(None)
    train(
        model,
        solver=SolverConfig(**{"base_lr": 0.1, "warmup_steps": 2, "milestones": (4,), "steps": steps, **solver}),
        batches=batches or usual,
        batch_size=8,
        device=torch.device("cpu"),
        run=run,
        settings=TrainSettings(**{"log_interval": 2, "display": "plain", **settings, **changes}),
        validation=lambda: iter([batch_of(10**6), batch_of(10**6 + 1)]),
        resume=run.path if resume else None,
    )
    return run


def broken(kind):
    def batches(step):
        while True:
            if step == 2 and distributed.rank() == 1:
                if kind == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                if kind == "failing":
                    raise cli.UsageError("this picture is torn")
                time.sleep(100)
            yield batch_of(step)
            step += 1

    return batches


def work(path, case, *flags):
    with distributed.processes(torch.device("cpu")):
        if case == "equal":
            for name in CASES:
                fit(Path(path) / name, name, validation_batches=2)
        elif case == "slow":
            fit(path, "plain", steps=40, seconds=0.1, resume="--resume" in flags, checkpoint_interval=5)
        else:
            fit(path, "plain", batches=broken(case), hang_seconds=3.0)


def main(count, *args):
    if int(count) > 1 and not distributed.is_launched():
        return distributed.launch(int(count), [sys.executable, __file__, count, *args])
    return work(*args)


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(cli.run_main(lambda: main(*sys.argv[1:])))
