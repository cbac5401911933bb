"""A run's directory has one writer."""

import os
import signal

import pytest

from det_engine import EngineError, RunDirectory
from det_engine.lock import FolderLock
from testing.processes import environment, start_python

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX locks")
ENVIRONMENT = {"written_by": "det-engine"}
HOLD = """
import sys
from det_engine.lock import FolderLock
from pathlib import Path
lock = FolderLock.of(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path` until its input ends."""
    process = start_python("-c", HOLD, tmp_path, stdin=-1, env=environment())
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_writer_is_refused_and_told_of_the_first(tmp_path, holder):
    message = rf"is in use: process {holder.pid} on .* has been writing there since 20\d\d-"
    with pytest.raises(EngineError, match=message):
        FolderLock.of(tmp_path)
    with pytest.raises(EngineError, match=message):
        RunDirectory.create(tmp_path, config={}, environment=ENVIRONMENT)
    assert [path.name for path in tmp_path.iterdir()] == [FolderLock.NAME]
    holder.communicate("")
    assert list(tmp_path.iterdir()) == []
    RunDirectory.create(tmp_path, config={}, environment=ENVIRONMENT)


def test_a_killed_holder_is_no_obstacle(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / FolderLock.NAME).exists()
    lock = FolderLock.of(tmp_path)
    assert str(os.getpid()) in lock.path.read_text()


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "letter").write_text("dear")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FolderLock.NAME).symlink_to(tmp_path / "letter")
    lock = FolderLock.of(tmp_path / "run")
    assert str(os.getpid()) in lock.path.read_text()
    assert (tmp_path / "letter").read_text() == "dear"


def test_a_process_has_one_lock_and_its_children_none(tmp_path):
    first = FolderLock.of(tmp_path)
    assert FolderLock.of(tmp_path / "." / "..") is not first
    assert FolderLock.of(tmp_path / ".." / tmp_path.name) is first
    child = os.fork()
    if not child:
        del first  # must neither delete the file nor give the lock back
        os._exit(0)
    os.waitpid(child, 0)
    process = start_python("-c", HOLD, tmp_path, stdin=-1)
    assert "is in use" in process.communicate("")[1]
    del first
    assert list(tmp_path.iterdir()) == []


def test_training_holds_the_run(small, cpu, tmp_path, holder):
    from det_engine import train

    with pytest.raises(EngineError, match="is in use"):
        train(
            small.make_net(), solver=small.make_solver(2), batches=small.make_batches, batch_size=4, device=cpu,
            run=RunDirectory(tmp_path),
        )  # fmt: skip
