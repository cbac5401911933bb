import io

from det_engine import make_display
from det_engine.progress import LiveDisplay, PlainDisplay, clock

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


def test_no_display_says_nothing(capsys):
    display = make_display("none", total=3)
    display.step(1)
    display.losses(1, VALUES)
    display.note("hello")
    display.close()
    assert capsys.readouterr().out == ""


def test_clock():
    assert [clock(0), clock(59.6), clock(3725)] == ["0:00:00", "0:01:00", "1:02:05"]
