import io
import sys
import types

import pytest

from det_engine import make_display
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


def test_no_display_says_nothing(capsys):
    display = make_display("none", total=3)
    display.step(1)
    display.losses(1, VALUES)
    display.note("hello")
    display.close()
    assert capsys.readouterr().out == ""


def test_clock():
    assert [clock(0), clock(59.6), clock(3725)] == ["0:00:00", "0:01:00", "1:02:05"]
