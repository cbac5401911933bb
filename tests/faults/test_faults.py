"""The promise of docs/reliability.md, measured: killed at any moment, nothing is lost, and it goes on bit for bit.

    hatch run pytest tests/faults -s                             the figures
    DET_FAULTS=2000 hatch run pytest tests/faults -s             more of them

Each fault ends a training in a process of its own; then there must be a checkpoint as good as before, and the run
that goes on must end with the very bits of one that nothing happened to.
"""

import os
import random
import shutil
import signal
import time

import pytest

from det_engine import EngineError, RunDirectory, checkpoint, read_metrics
from det_engine.watchdog import HUNG
from testing import small_training
from tests.faults import victim

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]
STEPS = 14
MOST = int(os.environ.get("DET_FAULTS", "100"))


@pytest.fixture(scope="module")
def victims():
    victims = victim.Victims()
    yield victims
    victims.close()


@pytest.fixture(scope="module")
def whole(victims, tmp_path_factory):
    """A run that nothing happens to."""
    path = tmp_path_factory.mktemp("whole") / "run"
    assert victims.run(path, STEPS) == [0]
    return RunDirectory(path)


@pytest.fixture(scope="module")
def operations(victims, tmp_path_factory):
    """How many operations on files a run has."""
    path = tmp_path_factory.mktemp("count") / "run"
    assert victims.run(path, STEPS, "count") == [0]
    return int(path.with_suffix(".operations").read_text())


def newest(run: RunDirectory) -> int:
    """The step from which a run goes on; -1 if from its beginning."""
    paths = [path for path in (run.last, run.previous) if path.exists()]
    return checkpoint.load_first(paths)[0]["step"] if paths else -1


def assert_as_if_nothing_had_been(run: RunDirectory, whole: RunDirectory) -> None:
    """Weights, momentum, random numbers, history, best and log are those of the whole run, to the last bit."""
    for name in ("last", "best"):
        one, other = (checkpoint.load(getattr(found, name)) for found in (whole, run))
        # The rate that an optimizer holds is set anew in each step.
        assert small_training.differences(one, other, skip=("seconds", "lr")) == [], name
    kept = checkpoint.load(run.checkpoints / "step-12.pt")
    assert kept["step"] == 12
    logged = [
        [(line["kind"], line["step"], line.get("loss")) for line in read_metrics(r.metrics)] for r in (whole, run)
    ]
    assert logged[0] == logged[1]
    leftovers = [path.name for path in run.path.rglob("*") if path.suffix in (".writing", ".linking")]
    assert leftovers == []


def test_killed_at_operations_on_files(victims, whole, operations, tmp_path):
    """At every one in turn, as far as the time allows; a run is killed again and again on its way."""
    rounds = min(MOST // 2, operations)
    moments = [1 + round(number * (operations - 1) / max(1, rounds - 1)) for number in range(rounds)]
    for moment in moments:
        path = tmp_path / "run"
        shutil.rmtree(path, ignore_errors=True)
        assert victims.run(path, STEPS, "kill", moment) == [-signal.SIGKILL], moment
        newest(RunDirectory(path))
        assert victims.run(path, STEPS) == [0]
        assert_as_if_nothing_had_been(RunDirectory(path), whole)
    print(f"\nkilled at {rounds} of {operations} operations on files: {rounds} went on to the same bits")


def test_killed_at_drawn_moments(victims, whole, tmp_path):
    """Again and again on the way of a run, which never falls behind a checkpoint that it had."""
    draw, kills, runs = random.Random(3), 0, 0
    while kills < MOST // 2:
        path = tmp_path / f"run-{runs}"
        reached, status = -1, -signal.SIGKILL
        while status == -signal.SIGKILL:
            (process,) = victims.start(path, STEPS, "slow")
            time.sleep(draw.uniform(0.05, 1.0))
            os.kill(process, signal.SIGKILL)
            (status,) = victims.ended()
            kills += status != 0
            assert status in (0, -signal.SIGKILL)
            assert newest(RunDirectory(path)) >= reached
            reached = newest(RunDirectory(path))
        assert_as_if_nothing_had_been(RunDirectory(path), whole)
        runs += 1
    print(f"\nkilled {kills} times at drawn moments of {runs} runs: no checkpoint lost, all ended with the same bits")


def test_a_disk_that_is_full_from_some_operation_on(victims, whole, operations, tmp_path):
    """One message and status 2, and what was written before is there; with room again it goes on."""
    rounds = min(MOST // 4, operations)
    for number in range(rounds):
        moment = 1 + round(number * (operations - 1) / max(1, rounds - 1))
        path = tmp_path / "run"
        shutil.rmtree(path, ignore_errors=True)
        assert victims.run(path, STEPS, "full", moment) in ([0], [2]), moment
        run = RunDirectory(path)
        if run.path.exists():
            newest(run)
        assert victims.run(path, STEPS) == [0]
        assert_as_if_nothing_had_been(run, whole)
    print(f"\na full disk at {rounds} of {operations} operations: one message each, all went on to the same bits")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_stopped_by_a_signal_at_drawn_moments(victims, whole, tmp_path, name):
    """Status 128 + its number, a checkpoint of the last step, and the same bits in the end."""
    draw, number = random.Random(name), getattr(signal, name)
    stopped = 0
    for turn in range(max(2, MOST // 20)):
        path = tmp_path / f"run-{turn}"
        (process,) = victims.start(path, STEPS, "slow")
        time.sleep(draw.uniform(0.3, 1.0))
        os.kill(process, number)
        (status,) = victims.ended()
        # Before the training began, or after it had ended, the signal does what it does to every program.
        assert status in (0, 128 + number, 130, -number), status
        stopped += status == 128 + number
        assert victims.run(path, STEPS) == [0]
        assert_as_if_nothing_had_been(RunDirectory(path), whole)
    print(f"\n{name}: {stopped} of {turn + 1} were stopped within the training, all went on to the same bits")


@pytest.fixture(scope="module")
def whole_of_two(victims, tmp_path_factory):
    """A run of two processes that nothing happens to."""
    path = tmp_path_factory.mktemp("two") / "run"
    assert victims.run(path, STEPS, processes=2) == [0, 0]
    return RunDirectory(path)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL", "SIGSTOP"])
def test_a_signal_to_one_of_two_processes(victims, whole_of_two, tmp_path, name, number):
    """Both end, whichever got it: with a checkpoint, or because the other one was lost or hangs; and they go on."""
    path, sent = tmp_path / "run", getattr(signal, name)
    processes = victims.start(path, STEPS, "slow", processes=2)
    lines = random.Random(f"{name} {number}").randint(1, 3)
    end = time.monotonic() + 600
    run = RunDirectory(path)
    log = path / "metrics.jsonl"
    # One that is killed or stopped leaves no checkpoint of its own: the first of the run has to be there.
    while not log.exists() or log.read_bytes().count(b"\n") < lines or newest(run) < 2:
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(processes[number], sent)
    statuses = victims.ended()
    # One that was stopped is continued, and may find that the other one has left by then.
    assert statuses[number] in {"SIGKILL": (-sent,), "SIGSTOP": (HUNG, 2)}.get(name, (128 + sent,))
    # An evaluation is left at once, by the one that got the signal; the other one notices that it is gone.
    assert statuses[1 - number] in ((HUNG,) if name == "SIGSTOP" else (2, HUNG, 128 + sent))
    assert victims.run(path, STEPS, processes=2) == [0, 0]
    assert_as_if_nothing_had_been(run, whole_of_two)


@pytest.mark.parametrize("kind", ["slow", "clock"])
def test_a_slow_disk_and_a_clock_that_jumps_change_nothing(victims, whole, tmp_path, kind):
    path = tmp_path / "run"
    assert victims.run(path, STEPS, kind) == [0]
    assert_as_if_nothing_had_been(RunDirectory(path), whole)


def test_a_damaged_file_is_always_noticed(whole, tmp_path):
    """A bit flipped or a file cut anywhere: refused, or the content is to the last bit what it was."""
    draw, refused, same = random.Random(5), 0, 0
    content, state = whole.last.read_bytes(), checkpoint.load(whole.last)
    path = tmp_path / "damaged.pt"
    for turn in range(MOST * 4):
        damaged = bytearray(content)
        if turn % 4 == 0:
            del damaged[draw.randrange(len(damaged)) :]
        else:
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        if turn % 4 == 2:  # so that no seal says it
            damaged += b"\0"
        path.write_bytes(damaged)
        try:
            assert small_training.differences(state, checkpoint.load(path)) == []
            same += 1
        except EngineError:
            refused += 1
    print(f"\n{MOST * 4} damaged checkpoints: {refused} refused, {same} damaged beside the content, which was the same")
    assert refused > same
