"""A training in one or several processes, as the tests start it.

python job.py PROCESSES RUN_DIRECTORY CASE

Cases: `plain` one training; `equal` several short ones, one of which goes on from RUN_DIRECTORY/../half; `killed`,
`hanging`: process 1 does so in its third step; `stopped` and `stopped-early`: it is stopped as by a debugger, in
its third step and before the first; `computing`: process 0 computes for long in an evaluation; `worker`: a data worker
is stopped; `restarted`: the first process 1 is killed in its seventh; `faulty`: process 1 has bad images; `slow`.
"""

import itertools
import math
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
import torch.utils.tensorboard  # it takes a while, during which the others would wait
from torch import nn

from det_engine import EngineError, RunDirectory, SolverConfig, TrainSettings, cli, distributed, train


class Net(nn.Module):
    """A loss over a number of rows that follows from the data, and random numbers; both know of parts."""

    def __init__(self, norm=None):
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 1)
        self.norm = norm or nn.GroupNorm(4, 16)

    def batch_part(self, *part):
        return part

    def layer_groups(self):
        return (("first.",),)

    def forward(self, batch, part=(0, 1, lambda number: number)):
        index, count, mean = part
        x, rows = batch["x"], len(batch["x"])
        noise = torch.rand(rows * count, 6)[index * rows : (index + 1) * rows]
        hidden = self.norm(self.first(x[:, :6] + 0.1 * noise)).relu()
        errors = (self.second(hidden)[:, 0].float() - batch["y"]).square()
        number = mean(batch["used"].sum()).clamp(min=1 / count)
        return {"loss_used": (errors * batch["used"]).sum() / number, "loss_all": 0.1 * errors.mean()}


def batch_of(step, images=8):
    """The images of a step; which of them a process sees follows from its rank, and so does the padding of `x`."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(images, 6, generator=generator)
    used = torch.rand(images, generator=generator) < 0.4
    whole = {"x": x, "y": x[:, 0] * x[:, 1], "used": used, "image_ids": 100 * step + torch.arange(images)}
    share = images // distributed.world_size()
    own = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    part = {name: value[own] for name, value in whole.items()}
    part["x"] = nn.functional.pad(part["x"], (0, (step + distributed.rank()) % 2))
    return part


CASES = {
    "plain": ({}, {}),
    "accumulated": ({"accumulate": 2}, {}),
    "captured": ({"capture": True}, {"clip_norm": 0.5}),
    "O2": ({"precision": "O2", "loss_scale": 128.0}, {"ema_decay": 0.5}),
    "adamw": ({}, {"optimizer": "adamw", "base_lr": 0.01, "ema_decay": 0.9}),
}
NORMS = {}
"""Makes the norm of a case, where it is not the usual one; filled by a test that may use other packages."""


def fit(path, case, *, steps=6, resume=False, batches=None, evaluate=None, seconds=0.0, **changes):
    """Train; the run's directory."""

    def usual(step):
        for number in itertools.count(step):
            time.sleep(seconds)
            yield batch_of(number)

    settings, solver = CASES[case]
    torch.manual_seed(0)
    model = Net(NORMS[case]() if case in NORMS else None)
    run = RunDirectory(path)
    if distributed.is_main() and not resume:
        RunDirectory.create(path, config={}, environment={"written_by": "det-engine"})
    distributed.broadcast_object(None)
    train(
        model,
        solver=SolverConfig(**{"base_lr": 0.1, "warmup_steps": 2, "milestones": (4,), "steps": steps, **solver}),
        batches=usual if batches is None else batches,
        evaluate=evaluate,
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
        for number in itertools.count(step):
            if number == 2 and distributed.rank() == 1:
                if kind == "torn":
                    raise cli.UsageError("this picture is torn")
                if kind in ("killed", "stopped"):
                    os.kill(os.getpid(), signal.SIGKILL if kind == "killed" else signal.SIGSTOP)
                time.sleep(600)
            yield batch_of(number)

    return batches


class Rows(torch.utils.data.Dataset):
    """Rows of batches, whose worker is stopped at the 20th."""

    def __len__(self):
        return 100

    def __getitem__(self, number):
        if number == 20:
            os.kill(os.getpid(), signal.SIGSTOP)
        return {name: value[0, :6] if name == "x" else value[0] for name, value in batch_of(number).items()}


def compute_long():
    """An evaluation that takes process 0 thrice as long as it may be still."""
    end = time.monotonic() + (15 if distributed.is_main() else 0)
    while time.monotonic() < end:
        sum(range(10**5))
    return {"AP": 0.5}


def killed_once(step):
    for number in itertools.count(step):
        if number == 6 and distributed.rank() == 1 and not distributed.is_restarted():
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch_of(number)


def faulty(name, value, times):
    """Batches of which the fourth, `times` times that it is asked for, has `value` in a row of process 1."""
    left = [times]

    def batches(step):
        for number in itertools.count(step):
            batch = batch_of(number)
            if number == 3 and distributed.rank() == 1 and left[0]:
                left[0] -= 1
                batch[name][1] = value
                batch["used"][1] = True
            yield batch

    return batches


def equal(path):
    """Every case; a short training to go on with; and one that goes on from that of another number of processes."""
    for name in CASES:
        fit(path / name, name, validation_batches=2)
    fit(path / "half", "plain", steps=4)
    others = path.parent / "half"
    if others.exists():
        if distributed.is_main():
            shutil.copytree(others, path / "resumed")
        distributed.broadcast_object(None)
        fit(path / "resumed", "plain", resume=True, validation_batches=2)


def faults(path):
    """A fault under each policy, data that fail, and at last an error elsewhere."""
    often = {"steps": 8, "checkpoint_interval": 2}
    fit(path / "skip", "plain", batches=faulty("x", 3e38, math.inf), on_failure="skip", **often)
    # Once in the step, once to be explained.
    fit(path / "rollback", "plain", batches=faulty("y", math.inf, 2), on_failure="rollback", **often)
    try:
        fit(path / "stop", "plain", batches=faulty("y", math.nan, math.inf), **often)
    except EngineError as error:
        (path / f"stopped-{distributed.rank()}").write_text(str(error))
    try:
        fit(path / "torn", "plain", batches=broken("torn"))
    except (EngineError, distributed.OtherProcessError) as error:
        (path / f"torn-{distributed.rank()}").write_text(str(error))
    # Nobody goes on before both have written.
    distributed.gather_object(None)
    distributed.broadcast_object(None)
    if distributed.rank() == 1:
        raise cli.UsageError("this picture is torn")
    fit(path / "failing", "plain")


def work(path, case):
    path = Path(path)
    with distributed.processes(torch.device("cpu"), hang_seconds=5.0 if case == "stopped-early" else 900.0):
        if case == "equal":
            equal(path)
        elif case == "plain":
            fit(path, case, validation_batches=2)
        elif case == "faulty":
            faults(path)
        elif case == "slow":
            fit(path, "plain", steps=2000, seconds=0.3, checkpoint_interval=5)
        elif case == "restarted":
            again = distributed.is_restarted()
            fit(path, "plain", steps=10, batches=killed_once, resume=again, checkpoint_interval=2)
        elif case == "stopped-early":
            if distributed.rank() == 1:
                os.kill(os.getpid(), signal.SIGSTOP)
            fit(path, "plain")
        elif case == "computing":
            fit(path, "plain", evaluate=compute_long, evaluation_interval=3, hang_seconds=5.0)
        elif case == "worker":
            loader = torch.utils.data.DataLoader(Rows(), batch_size=8, num_workers=1)
            fit(path, "plain", batches=loader, hang_seconds=5.0)
        else:
            fit(path, "plain", batches=broken(case), hang_seconds=8.0)


def main(count, *args):
    if int(count) > 1 and not distributed.is_launched():
        return distributed.launch(int(count), [sys.executable, sys.argv[0], count, *args])
    return work(*args)


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(cli.run_main(lambda: main(*sys.argv[1:])))
