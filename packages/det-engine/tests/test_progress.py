import io
import sys
import types

import pytest

import det_engine.progress as progress
from det_engine import TrainSettings, make_display, train
from det_engine.progress import LineDisplay, LiveDisplay, PlainDisplay, clock

VALUES = {
    "loss": 1.5,
    "loss_box": 0.5,
    "learning_rate": 0.02,
    "images_per_second": 3.25,
    "step_seconds": 2.0,
    "data_seconds": 0.5,
    "peak_memory_mib": 100.0,
}


def test_a_file_gets_plain_lines():
    stream = io.StringIO()
    display = make_display("auto", total=100, start=0, stream=stream)
    assert type(display) is PlainDisplay
    for step in range(1, 21):
        display.step(step)
    display.losses(20, VALUES)
    display.note("hello [there]")
    display.close()
    first, second = stream.getvalue().splitlines()
    assert first.startswith("step 20/100  loss 1.5000  loss_box 0.5000  lr 0.02  3.25 img/s  data 25%  100 MiB  ETA 0:")
    assert "memory" not in first
    assert second == "hello [there]"


def test_the_live_display_shows_step_losses_speed_and_time_left():
    stream = io.StringIO()
    display = LiveDisplay(100, 0, stream)
    display.step(20)
    display.losses(20, VALUES)
    display.note("hello [there]")
    display.close()
    text = stream.getvalue()
    for part in ("20/100", "ETA 0:", "loss_box 0.5000", "lr 0.02", "3.25 img/s", "hello [there]"):
        assert part in text


def test_the_live_display_shows_what_a_signal_brings_within_its_block():
    stream = io.StringIO()
    display = LiveDisplay(2, 0, stream, interval=0)
    display.step(2)
    display.evaluated(1.5)
    assert display.urgent("stopping")
    display.close()
    assert "stopping" in stream.getvalue()
    assert "ETA 0:00:00\n" in stream.getvalue()  # no evaluation is to come
    assert not display.urgent("stopping")  # nor would anybody see it


def seen(text):
    """What a notebook shows of a text with carriage returns."""
    lines = []
    for written in text.split("\n"):
        line = ""
        for piece in written.split("\r"):
            line = piece + line[len(piece) :]
        lines.append(line.rstrip())
    return lines


def test_a_notebook_gets_one_line_that_is_written_anew():
    stream = io.StringIO()
    display = LineDisplay(100, 0, stream)
    for step in range(1, 21):
        display.step(step)
    display.losses(20, VALUES)
    display.note("step 20: evaluating")
    display.losses(100, {"loss": 0.25})
    display.close()
    first, second, rest = seen(stream.getvalue())
    assert first == "step 20: evaluating"
    assert second.startswith("step 100/100  loss 0.2500  ETA 0:00:00")
    assert "loss_box" not in second
    assert rest == ""
    assert stream.getvalue().count("\r") < 10  # not one for every step


@pytest.mark.parametrize(("shell", "kind"), [("ZMQInteractiveShell", LineDisplay), ("TerminalInteractiveShell", None)])
def test_a_notebook_is_known_by_its_shell(shell, kind, monkeypatch):
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = type(shell, (), {})
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    display = make_display("auto", total=3)
    assert type(display) is (kind or PlainDisplay)


def test_the_time_left_counts_evaluations(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    left = progress.Remaining(100, 0, interval=40)
    assert left.at(0) == "?"
    now[0] = 40.0
    assert left.at(20) == "0:02:40 + 3 evaluations"  # after steps 40, 80 and 100
    now[0] = 80.0
    assert left.at(40) == "0:02:00 + 2 evaluations"
    now[0] += 30
    left.evaluated(30.0)
    assert left.at(40) == "0:03:00"
    assert left.at(80) == "0:00:50"  # 20 steps, which were faster by then, and 30 seconds
    assert progress.Remaining(100, 0, interval=0)._left(10) == 1
    assert progress.Remaining(100, 0)._left(10) == 0


def test_a_training_counts_its_own_evaluations(small, cpu, tmp_path, capsys):
    model = small.make_net()
    settings = TrainSettings(log_interval=5, evaluation_interval=20, display="plain")
    arguments = {"solver": small.make_solver(40), "batches": small.make_batches, "batch_size": 4, "device": cpu}
    run = small.make_run(tmp_path / "run")
    train(model, run=run, settings=settings, evaluate=small.make_evaluate(model), **arguments)
    first, *_, last = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("step") and "ETA" in line
    ]
    assert first.endswith(" + 2 evaluations")
    assert "evaluation" not in last


def test_no_display_says_nothing(capsys):
    display = make_display("none", total=3)
    display.step(1)
    display.losses(1, VALUES)
    display.note("hello")
    display.close()
    assert capsys.readouterr().out == ""


def test_clock():
    assert [clock(0), clock(59.6), clock(3725)] == ["0:00:00", "0:01:00", "1:02:05"]
