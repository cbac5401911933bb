"""Which of several processes this one is, and starting several: what a command asks before it loads torch."""

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
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from det_engine.errors import EngineError
from det_engine.lock import FolderLock

if TYPE_CHECKING:
    from torch.distributed import TCPStore

LAUNCHED = "DET_LAUNCHED"
"""Set in processes that `launch` or a sweep started, to the id of its own process: they end where that one has ended.

`launch` prints their message."""
_GRACE = 300


def rank() -> int:
    """Number of this process among all, from 0."""
    dist = _group()
    return 0 if dist is None else dist.get_rank()


def world_size() -> int:
    """How many processes train together."""
    dist = _group()
    return 1 if dist is None else dist.get_world_size()


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


def starter() -> int | None:
    """The process of ours that started this one alone, such as a sweep, and with which it ends; None: nobody's."""
    number = int(os.environ.get(LAUNCHED, "0"))
    return number if number == os.getppid() else None


def is_restarted() -> bool:
    """Whether torchrun started this process anew after another one had failed, or Slurm a job that was preempted."""
    counts = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any(int(os.environ.get(name, "0")) > 0 for name in counts)


def _group() -> ModuleType | None:
    """What the processes of this job talk by; None in one alone, as each is until torch is loaded."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist is not None and dist.is_available() and dist.is_initialized() else None


def leave(status: int) -> None:
    """End this process at once if it is one of several; else do nothing.

    An ordinary end would destroy threads of communication, which abort the process if they still wait for another one.

    Args:
        status: exit status.
    """
    if _group() is None:
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
    started_by = starter()
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
    with _quiet_agent(), _ending_with(started_by):
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


def _local_store() -> "TCPStore":
    """A store that listens on the loopback interface; torch's agent finds it here, and would listen on all of them."""
    from torch.distributed import TCPStore

    listening = socket.create_server(("127.0.0.1", 0))
    address, port = listening.getsockname()
    # Of several stores with `multi_tenant` and one port, the process keeps the first.
    return TCPStore(address, port, is_master=True, multi_tenant=True, master_listen_fd=listening.detach())


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


@contextlib.contextmanager
def _ending_with(process: int | None) -> Iterator[None]:
    """A block that gets SIGTERM when the process that started this one has ended."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1.0):
            if os.getppid() != process:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    if process is not None:
        threading.Thread(target=watch, name="starter", daemon=True).start()
    try:
        yield
    finally:
        done.set()


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
