"""Several processes as one training: starting them, finding each other, exchanging what must be the same everywhere.

Without a launcher every function below works for the one process that there is.
"""

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from det_engine.errors import EngineError
from det_engine.launching import (
    LAUNCHED,
    is_launched,
    is_main,
    is_restarted,
    launch,
    leave,
    local_rank,
    rank,
    report_to_launcher,
    starter,
    world_size,
)
from det_engine.watchdog import Watchdog

__all__ = [
    "LAUNCHED",
    "OtherProcessError",
    "StopVote",
    "all_reduce_mean",
    "any_process",
    "broadcast_object",
    "gather_object",
    "is_launched",
    "is_main",
    "is_restarted",
    "launch",
    "leave",
    "local_rank",
    "main_first",
    "per_process",
    "processes",
    "rank",
    "report_to_launcher",
    "world_size",
]

_BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "npu": "cpu:gloo,npu:hccl"}
# What is said where a connection to another process broke; that process is the one to name, not this one.
_LOST = re.compile(r"connection (closed|reset|refused)|gloo|nccl|hccl|remote process|broken pipe", re.IGNORECASE)
# Who lost another process leaves so many seconds later, so that the launcher sees the other one end first.
_PATIENCE = 10


class OtherProcessError(RuntimeError):
    """Another process ends with an error, so that this one has to end too."""


@contextlib.contextmanager
def processes(device: torch.device, hang_seconds: float = 900.0) -> Iterator[None]:
    """A block in which the processes that a launcher started are one job, and a watchdog sees that it moves.

    Only rank 0 prints. The backend follows from the device (gloo, nccl, hccl, and gloo beside them for what is on the
    host). A process that loses another one ends, a moment later, so that the launcher names the one that was lost.
    The block leaves the group as it is: call :func:`leave` when the last message is out.

    Args:
        device: what this process computes on.
        hang_seconds: time without a sign of life of any process after which the job is ended.

    Raises:
        EngineError: the processes do not find each other, or another one was lost.
        RuntimeError: the block raised one that is not about another process.
    """
    if not is_launched():
        with Watchdog(hang_seconds, device, launcher=starter()):
            yield
        return
    with _joined(device, hang_seconds):
        shown = sys.stdout
        if not is_main():
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - lives as long as the process
        try:
            yield
            # Nobody leaves while another one may still wait for what this process has sent.
            gather_object(None)
            broadcast_object(None)
        except RuntimeError as error:
            if not isinstance(error, dist.DistError | OtherProcessError) and not _LOST.search(str(error)):
                raise
            time.sleep(_PATIENCE)
            reason = str(error).strip().splitlines()[0][:200]
            raise EngineError(
                f"Process {rank()} lost contact with another one, which probably ended: {reason}"
            ) from error
        finally:
            sys.stdout = shown


@contextlib.contextmanager
def _joined(device: torch.device, hang_seconds: float) -> Iterator[None]:
    """A block in which this process is part of its job, from the moment on in which it finds the store of all."""
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    launcher = int(os.environ[LAUNCHED]) if LAUNCHED in os.environ else None
    patience = timedelta(minutes=30)
    with contextlib.ExitStack() as stack:
        try:
            finding = stack.enter_context(_ending_with(launcher))
            found, number, count = next(iter(dist.rendezvous("env://", timeout=patience)))
            # torchrun keeps one store for all its attempts, and what a process of an earlier one wrote there, such as
            # its address, would be taken for that of its successor: both would wait for ever.
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = dist.PrefixStore(f"attempt {attempt} of {count}", found)
            job: dict[str, Any] = {"number": number, "count": count, "launcher": launcher}
            stack.enter_context(Watchdog(hang_seconds, device, store=store, **job))
            backend = _BACKENDS[device.type]
            dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=patience)
            finding.set()
        except (dist.DistError, RuntimeError, ValueError) as error:
            raise EngineError(
                f"The {os.environ['WORLD_SIZE']} processes do not find each other at {address}: {error}"
            ) from error
        yield


@contextlib.contextmanager
def _ending_with(launcher: int | None) -> Generator[threading.Event]:
    """A block in which this process ends when its launcher has, until the event is set.

    It is for what waits inside PyTorch, where no signal is seen; afterwards the watchdog looks.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1.0):
            if os.getppid() != launcher:
                if os.environ["RANK"] == "0":
                    print(
                        "error: The process that started this job has ended; this one ends too.",
                        file=sys.stderr,
                        flush=True,
                    )
                os._exit(128 + signal.SIGTERM)

    if launcher is not None:
        threading.Thread(target=watch, name="launcher", daemon=True).start()
    try:
        yield done
    finally:
        done.set()


def broadcast_object(value: Any) -> Any:
    """Rank 0's `value`, of anything that can be pickled, on every process."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def gather_object(value: Any) -> list[Any] | None:
    """The values of all processes in the order of their ranks, on rank 0; None elsewhere."""
    if world_size() == 1:
        return [value]
    values: list[Any] | None = [None] * world_size() if is_main() else None
    dist.gather_object(value, values)
    return values


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """Replace a floating tensor of any shape by its mean over all processes, without a host read, and return it."""
    if world_size() > 1:
        dist.all_reduce(tensor)
        tensor /= world_size()
    return tensor


def any_process(flag: bool) -> bool:
    """Whether a flag is set in some process; all of them call it together, and wait for each other."""
    if world_size() == 1:
        return flag
    vote = torch.tensor(int(flag))
    dist.all_reduce(vote, dist.ReduceOp.MAX)
    return bool(vote)


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """A block that rank 0 runs before the others, such as one that makes or downloads what all of them read."""
    if not is_main():
        broadcast_object(None)
    yield
    if is_main():
        broadcast_object(None)


def per_process(total: int) -> int:
    """Divide `total` images a step among the processes; how many each has.

    Raises:
        EngineError: the processes cannot have equally many.
    """
    share_of_each, rest = divmod(total, world_size())
    if rest or not share_of_each:
        below, above = total - rest, total - rest + world_size()
        raise EngineError(
            f"A batch of {total} images cannot be shared equally by {world_size()} processes; make it "
            f"{f'{below} or ' if below else ''}{above}."
        )
    return share_of_each


class StopVote:
    """Lets all processes stop after the same step, though a signal reaches them at different moments.

    The votes of a step are counted on the host while the next one runs, so nobody waits for them.
    """

    def __init__(self) -> None:
        self._pending: tuple[Any, Tensor] | None = None

    def __call__(self, requested: int | None) -> int | None:
        """Vote for this step; the number of the signal that some process had received one step ago, or None."""
        if world_size() == 1:
            return requested
        decided = 0
        if self._pending is not None:
            work, counted = self._pending
            work.wait()
            decided = int(counted)
        vote = torch.tensor(requested or 0)
        self._pending = (dist.all_reduce(vote, dist.ReduceOp.MAX, async_op=True), vote)
        return decided or None
