"""A training that dies where it is told to: what the tests of faults start, in a process of its own.

`Victims().start(RUN, STEPS, KIND, NUMBER)` goes on where there is a checkpoint, in one process or in several. KIND and
NUMBER say what happens at which operation on files (counted from 1, opening, writing, flushing, linking, renaming and
deleting beneath RUN): `kill` ends the process as kill -9 does, `full` says from then on that the disk is full, `count`
writes how many there were to RUN.operations. `slow` delays each, and `clock` moves the clock by hours with each.
"""

import errno
import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

from det_engine import RunDirectory, TrainSettings, cli, distributed, train
from testing.small_training import make_batches, make_evaluate, make_net, make_run, make_solver

HANG_SECONDS = 5.0
SETTINGS = TrainSettings(
    log_interval=3,
    checkpoint_interval=2,
    evaluation_interval=4,
    keep_interval=6,
    hang_seconds=HANG_SECONDS,
    display="none",
    validation_batches=0,
)


class Disk:
    """Counts operations on files beneath a folder, and does to one of them what it was told.

    Args:
        folder: where operations count.
        kind: see the module.
        number: of the operation at which it happens.
    """

    def __init__(self, folder: Path, kind: str, number: int) -> None:
        self.folder, self.kind, self.number, self.done = str(folder.absolute()), kind, number, 0

    def touch(self, *paths: Any) -> None:
        """An operation on paths begins."""
        if not any(str(path).startswith(self.folder) for path in paths):
            return
        self.done += 1
        if self.kind == "kill" and self.done == self.number:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "full" and self.done >= self.number:
            raise OSError(errno.ENOSPC, "No space left on device", str(paths[0]))
        if self.kind == "slow":
            time.sleep(0.001)

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose paths are its first arguments, and that counts."""

        def counting(*args: Any, **kwargs: Any) -> Any:
            self.touch(*args[:2])
            return function(*args, **kwargs)

        return counting

    def install(self) -> None:
        """Stand between this process and its files."""
        for name in ("link", "replace", "rename", "unlink", "mkdir"):
            setattr(os, name, self.wrapped(getattr(os, name)))
        opened = pathlib.Path.open

        def open_path(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if mode[0] in "wxa":
                self.touch(path)
            file = opened(path, mode, *args, **kwargs)
            return _File(file, path, self) if mode[0] in "wxa" else file

        pathlib.Path.open = open_path  # type: ignore[method-assign, assignment]
        synced = os.fsync

        def sync(descriptor: int) -> None:
            self.touch(Path(f"/proc/self/fd/{descriptor}").readlink())
            synced(descriptor)

        os.fsync = sync


class _File:
    """A file whose writing counts."""

    def __init__(self, file: Any, path: Path, disk: Disk) -> None:
        self._file, self._path, self._disk = file, path, disk

    def write(self, data: Any) -> int:
        self._disk.touch(self._path)
        return self._file.write(data)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def own_batches(step: int) -> Iterator[dict[str, torch.Tensor]]:
    """This process's share of the images of each step."""
    rank, count = distributed.rank(), distributed.world_size()
    for batch in make_batches(step):
        yield {name: value.chunk(count)[rank] for name, value in batch.items()}


def learn(path: Path, steps: int) -> None:
    """Train to the end, or go on; what was killed before its first checkpoint is begun anew."""
    run = RunDirectory(path)
    fresh = distributed.broadcast_object(not run.is_resumable)
    if fresh and distributed.is_main():
        shutil.rmtree(path, ignore_errors=True)
        run = make_run(path)
    distributed.broadcast_object(None)
    model = make_net()
    train(
        model,
        solver=make_solver(steps),
        batches=own_batches,
        batch_size=4,
        device=torch.device("cpu"),
        run=run,
        settings=SETTINGS,
        evaluate=make_evaluate(model),
        resume=None if fresh else run.path,
    )


def main(path: str, steps: str, kind: str = "count", number: str = "0") -> None:
    """Train under a fault."""
    run = RunDirectory(path)
    disk = Disk(run.path, kind, int(number))
    disk.install()
    if kind == "clock":
        moved = itertools.count()
        real = time.time
        time.time = lambda: real() + (-1) ** next(moved) * 7200 * next(moved)
    with distributed.processes(torch.device("cpu"), HANG_SECONDS):
        learn(run.path, int(steps))
    if kind == "count":
        run.path.with_suffix(".operations").write_text(str(disk.done))


class Victims:
    """Starts trainings, one at a time, from a process that has loaded torch and computed nothing.

    A fork of a process in which threads have worked, as those of pytest have, may wait for ever for what they held.
    """

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.victim"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *arguments: object, processes: int = 1) -> list[int]:
        """Begin a training with the arguments of `main`; its process ids."""
        return self._ask(json.dumps([processes, *map(str, arguments)]))

    def ended(self) -> list[int]:
        """Status of each process when all have ended; minus the number of the signal that ended it."""
        return self._ask("")

    def run(self, *arguments: object, processes: int = 1) -> list[int]:
        """Train until it ends; the status of each process."""
        self.start(*arguments, processes=processes)
        return self.ended()

    def close(self) -> None:
        """Let the server end."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def _ask(self, line: str) -> list[int]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(line, file=self._server.stdin, flush=True)
        return json.loads(self._server.stdout.readline())


def serve() -> None:
    """Fork for a line on standard input and say the children's process ids; say their statuses for an empty line."""
    # What a training loads on its way, for seconds, is loaded once.
    import torch._dynamo
    import torch.utils.tensorboard

    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as in a terminal; under `nohup` it is ignored
    torch.set_num_threads(1)
    for line in sys.stdin:
        count, *arguments = json.loads(line)
        with socket.create_server(("127.0.0.1", 0)) as free:
            job = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1]}
            # The children are clients of a store, as those of a launcher are.
            job |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
        children = []
        for rank in range(count):
            child = os.fork()
            if not child:
                status = 1
                try:
                    os.dup2(2, 1)  # standard output is for answers
                    if count > 1:
                        own = job | {"RANK": rank, "LOCAL_RANK": rank}
                        os.environ.update({name: str(value) for name, value in own.items()})
                    status = cli.run_main(lambda: main(*arguments))  # noqa: B023 - called at once
                finally:
                    os._exit(status)
            children.append(child)
        # Here, for that of a process that is stopped answers nobody; after the forks, for it has a thread.
        store = TCPStore("127.0.0.1", job["MASTER_PORT"], is_master=True, wait_for_workers=False) if count > 1 else None
        print(json.dumps(children), flush=True)
        sys.stdin.readline()  # until they are asked for, ended children can be sent a signal
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
        del store


if __name__ == "__main__":
    serve()
