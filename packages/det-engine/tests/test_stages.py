"""Stages say how far they are once they last, and metrics are a table that fits a terminal."""

import io
import time

import pytest

import det_engine.stages
from det_engine import make_display
from det_engine.stages import shown_by, stage
from det_engine.tables import table


class Terminal(io.StringIO):
    """A text that passes for a terminal."""

    def isatty(self) -> bool:
        """True."""
        return True


@pytest.fixture
def soon(monkeypatch):
    """Stages that are worth a word at once."""
    monkeypatch.setattr(det_engine.stages, "_QUIET", 0.05)
    monkeypatch.setattr(det_engine.stages, "_REWRITTEN", 0.01)


def test_what_is_over_soon_says_nothing():
    stream = io.StringIO()
    with stage("reading", stream=stream):
        pass
    assert stream.getvalue() == ""


def test_a_file_gets_a_line(soon):
    stream = io.StringIO()
    with stage("detecting", 2000, stream) as advance:
        advance(500)
        time.sleep(0.2)
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("detecting: 500/2,000  ETA 0:00:0")


def test_a_terminal_has_one_line_that_is_taken_away(soon, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with stage("evaluating", stream=stream):
        time.sleep(0.2)
    states = stream.getvalue().split("\r")
    assert "\n" not in stream.getvalue()
    assert sum(state.startswith("evaluating: 0:00:0") for state in states) > 2
    assert states[-2].strip() == ""


def test_the_display_of_a_training_shows_its_stages(soon):
    stream = io.StringIO()
    display = make_display("line", 10, stream=stream)
    display.step(1)
    with shown_by(display), stage("detecting", 4) as advance:
        advance(2)
        time.sleep(0.2)
    display.note("evaluated")
    assert "\rdetecting: 2/4" in stream.getvalue()
    assert stream.getvalue().splitlines()[-2].split("\r")[-1].strip() == "evaluated"


def test_an_error_ends_the_stage(soon):
    stream = io.StringIO()
    with pytest.raises(KeyError), stage("reading", stream=stream):
        raise KeyError
    time.sleep(0.1)
    assert stream.getvalue() == ""


NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def test_metrics_are_a_table_of_80_columns():
    metrics = {f"{task}/{name}": 0.5 for task in ("bbox", "segm") for name in NAMES}
    metrics |= {"segm/APl": -1, "bbox/AP/cat": 0.25}
    lines = table(metrics).splitlines()
    assert [line.split() for line in lines] == [
        list(NAMES),
        ["bbox", *["0.500"] * 12],
        ["segm", *["0.500"] * 5, "-", *["0.500"] * 6],
    ]
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= 80


def test_what_has_other_columns_or_too_many_stands_below():
    metrics = {f"bbox/column{n}": n / 100 for n in range(12)} | {"validation/loss": 1.25}
    lines = table(metrics, width=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert [line.split()[0] for line in lines] == ["column0", "bbox", "column7", "bbox", "loss", "validation"]
    assert lines[-1].split() == ["validation", "1.250"]
