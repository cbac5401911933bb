"""What `benchmark` says about the part that bounds a training, and the options that it tries."""

import re

import pytest

from apps.common.bounds import Times, candidates, what_helps
from apps.mask_rcnn.config import tiny
from testing.command_line import call, small


@pytest.mark.parametrize(
    ("times", "bound", "whole"),
    [
        ({"loading": 2.0, "training": 1.0, "workers": 2}, "loading", 2.0),
        ({"loading": 2.0, "training": 1.0}, "loading", 3.0),
        ({"loading": 0.5, "training": 1.0, "host": 0.95, "workers": 2}, "the host", 1.0),
        ({"loading": 0.5, "training": 1.0, "host": 0.2, "workers": 2}, "the training step", 1.0),
        (
            {"loading": 0.5, "training": 1.0, "exchange": 0.6, "workers": 2},
            "the exchange of gradients between the processes",
            1.0,
        ),
    ],
)
def test_the_part_that_a_step_waits_for(times, bound, whole):
    assert Times(**times).bound == bound
    assert Times(**times).whole == whole


def options(device, cores=8, **times):
    return [option for option, _ in candidates(tiny(), Times(**times), device, cores)]


def test_options_are_those_for_the_bound():
    assert tiny().data.workers == 0
    assert options("cuda", loading=2.0, training=1.0) == ["--data.workers 1"]
    assert options("cpu", cores=1, loading=2.0, training=1.0) == []
    assert options("cuda", loading=0.0, training=1.0, host=0.95) == ["--train.capture True"]
    of_step = ["--train.capture True", "--train.precision bf16", "--train.precision tf32"]
    assert options("cuda", loading=0.0, training=1.0) == of_step
    assert options("cpu", loading=0.0, training=1.0) == ["--train.precision bf16"]


def test_what_was_measured_is_said():
    times = Times(loading=0.0, training=2.0)
    recipe = tiny()
    batch = recipe.data.batch

    def measure(other, option):
        assert other.train.precision == "bf16"
        return Times(loading=0.0, training=1.0)

    found = what_helps(recipe, times, "cpu", measure)
    assert found == [f"  --train.precision bf16: {batch:.1f} images/s instead of {batch / 2:.1f}"]
    worse = what_helps(recipe, times, "cpu", lambda *_: Times(loading=0.0, training=3.0))
    assert worse[0].endswith(", which is no help")
    assert worse[1] == "  No option that was tried helps; smaller images, a smaller network or a faster device would."

    def fails(*_):
        raise RuntimeError("no such kernels\nand more")

    assert what_helps(recipe, times, "cpu", fails)[0] == "  --train.precision bf16 does not work here: no such kernels"


def test_benchmark_measures_them(shapes, capsys):
    given = ["--data", shapes, "--steps", 2, "--warmup", 1, *small("mask_rcnn"), "--data.workers", 0]
    assert call("mask_rcnn", "benchmark", *given) == 0
    after = capsys.readouterr().out.partition("Training runs at about ")[2].splitlines()
    assert re.fullmatch(r"[\d.]+ images/s, bound by (loading|the training step)\.", after[0])
    assert any(
        re.match(r"  --(data\.workers|train\.precision) \w+: [\d.]+ images/s instead of", line) for line in after
    )
