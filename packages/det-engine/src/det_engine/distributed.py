"""Several processes as one training: starting them, finding each other, exchanging what must be the same everywhere.

Without a launcher every function below works for the one process that there is.
"""

import contextlib
import json
import logging
import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from det_engine.errors import EngineError
from det_engine.lock import FolderLock
from det_engine.watchdog import Watchdog

LAUNCHED = "DET_LAUNCHED"
"""Set in processes that `launch` started, to the id of its own process; it prints their message."""
_BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "npu": "cpu:gloo,npu:hccl"}
# What is said where a connection to another process broke; that process is the one to name, not this one.
_LOST = re.compile(r"connection (closed|reset|refused)|gloo|nccl|hccl|remote process|broken pipe", re.IGNORECASE)
_GRACE = 300
# Who lost another process leaves so many seconds later, so that the launcher sees the other one end first.
_PATIENCE = 10


class OtherProcessError(RuntimeError):
    """Another process ends with an error, so that this one has to end too."""


def rank() -> int:
    """Number of this process among all, from 0."""
    return dist.get_rank() if _together() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _together() else 1


def is_main() -> bool:
    """Whether this is the process that prints and writes files."""
    return rank() == 0


def local_rank() -> int:
    """Number of this process on its machine; decides on its device."""
    _take_slurm()
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_launched() -> bool:
    """Whether a launcher (`launch`, torchrun, srun) started this process as one of several."""
    _take_slurm()
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def is_restarted() -> bool:
    """Whether torchrun started this process anew after another one had failed, or Slurm a job that was preempted."""
    counts = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any(int(os.environ.get(name, "0")) > 0 for name in counts)


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


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
        with Watchdog(hang_seconds, device):
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


def leave(status: int) -> None:
    """End this process at once if it is one of several; else do nothing.

    An ordinary end would destroy threads of communication, which abort the process if they still wait for another one.

    Args:
        status: exit status.
    """
    if not _together():
        return
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    FolderLock.give_all_back()
    try:
        # PyTorch's handler would raise an error for each worker of its loaders.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for child in multiprocessing.active_children():
            child.kill()
    finally:
        os._exit(status)


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


def launch(count: int, command: Sequence[str]) -> int:
    """Run `command` in `count` processes of this machine by torch's elastic agent, and return the exit status.

    The first process that fails ends all; its rank is named. SIGINT and SIGTERM are passed on. The processes talk over
    the loopback interface alone: nobody else's machine reaches them.

    Args:
        count: number of processes.
        command: program and arguments; the processes find each other by the variables that torchrun sets.

    Raises:
        EngineError: there are fewer than one.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if count < 1:
        raise EngineError(f"The number of processes must be at least 1, got {count}.")
    os.environ[LAUNCHED] = str(os.getpid())
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    os.environ.setdefault("TORCHELASTIC_ERROR_LEVEL", "CRITICAL")
    loopback = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if loopback:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])
    store = _local_store()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=str(os.getpid()),
        rdzv_backend="static",  # c10d makes a further store, on all interfaces
        rdzv_endpoint=f"{store.host}:{store.port}",
        rdzv_configs={"rank": 0},
        max_restarts=0,
        local_addr="localhost",
        shutdown_timeout=_GRACE,
    )
    with _quiet_agent():
        try:
            elastic_launch(config, command[0])(*command[1:])
        except SignalException as error:
            return 128 + error.sigval
        except ChildFailedError as error:
            number, failure = error.get_first_failure()
            # Both that were killed and those that noticed may be seen at once; a signal is the older news.
            for other, seen in error.failures.items():
                if seen.exitcode < 0 and seen.exitcode != -signal.SIGTERM:
                    number, failure = other, seen
                    break
            return _report(number, count, failure)
    return 0


def _local_store() -> dist.TCPStore:
    """A store that listens on the loopback interface; torch's agent finds it here, and would listen on all of them."""
    listening = socket.create_server(("127.0.0.1", 0))
    address, port = listening.getsockname()
    # Of several stores with `multi_tenant` and one port, the process keeps the first.
    return dist.TCPStore(address, port, is_master=True, multi_tenant=True, master_listen_fd=listening.detach())


def _report(number: int, count: int, failure: Any) -> int:
    """Say which process failed and why; its status."""
    status = failure.exitcode
    message = failure.message if isinstance(failure.message, str) else failure.message.get("message", "")
    if status in (129, 130, 143):
        return status  # rank 0 has said it
    if status < 0:
        name = signal.Signals(-status).name
        print(
            f"error: Process {number} of {count} was ended by {name}"
            f"{' (out of memory?)' if name == 'SIGKILL' else ''}; the others were stopped.",
            file=sys.stderr,
            flush=True,
        )
        status = 128 - status
    elif failure.error_file != "<N/A>":
        print(f"error: {f'process {number}: ' if number else ''}{message}", file=sys.stderr, flush=True)
    else:
        print(f"error: Process {number} of {count} ended with status {status}.", file=sys.stderr, flush=True)
    return status


@contextlib.contextmanager
def _quiet_agent() -> Iterator[None]:
    """The agent's own log lines say in five forms what `launch` says in one."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def report_to_launcher(message: str) -> bool:
    """Leave the message of an error where `launch` or torchrun finds it; False if nobody would print it."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None:
        return False
    extra = {"py_callstack": message, "timestamp": str(int(time.time()))}
    with contextlib.suppress(OSError):
        Path(path).write_text(json.dumps({"message": {"message": message, "extraInfo": extra}}))
    return LAUNCHED in os.environ


def _take_slurm() -> None:
    """Give the variables of torchrun to a process that srun started as one of several."""
    if "RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return
    job = int(os.environ.get("SLURM_JOB_ID", "0"))
    nodes = os.environ.get("SLURM_STEP_NODELIST", os.environ.get("SLURM_JOB_NODELIST", "localhost"))
    values = {
        "RANK": os.environ["SLURM_PROCID"],
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "WORLD_SIZE": os.environ["SLURM_STEP_NUM_TASKS"],
        "MASTER_ADDR": first_host(nodes),
        "MASTER_PORT": str(20000 + job % 20000),
    }
    for name, value in values.items():
        os.environ.setdefault(name, value)


def first_host(nodes: str) -> str:
    """The first host of a Slurm node list such as `gpu[03-05,9],login1`."""
    found = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
    return nodes if found is None else found[1] + (found[2] or "")
