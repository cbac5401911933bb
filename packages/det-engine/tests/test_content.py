"""A whole checkpoint that holds something else than it should: every entry, in every wrong way, is one message."""

import pytest
import torch

from det_engine import EngineError, RunDirectory, TrainSettings, checkpoint, content, replay, train
from testing.changes import MISSING, WRONG, places, replaced

STEPS = 4


@pytest.fixture(scope="module")
def go_on(small):
    """Train for some steps, or go on from a file."""

    def run_it(run, resume=None):
        model = small.make_net()
        train(
            model,
            solver=small.make_solver(STEPS, ema_decay=0.5),
            batches=small.make_batches,
            batch_size=4,
            device=torch.device("cpu"),
            run=run,
            settings=TrainSettings(display="none", evaluation_interval=3, precision="fp16"),
            evaluate=small.make_evaluate(model),
            resume=resume,
            config={"a": 1},
        )

    return run_it


def test_a_training_that_goes_on_from_other_content(go_on, small, tmp_path):
    """It says what is wrong, or goes on where the change means nothing; it never ends with a traceback."""
    run = small.make_run(tmp_path / "run")
    go_on(run)
    state = checkpoint.load(run.previous)
    path = tmp_path / "changed.pt"
    refused = 0
    where = list(places(state, 3, most=4))
    for number, at in enumerate(where):
        # All wrong values for the entries, two others each time for what is in them.
        values = [MISSING, *WRONG] if len(at) == 1 else [MISSING, WRONG[number % len(WRONG)]]
        for new in values:
            checkpoint.save(path, replaced(state, at, new))
            try:
                go_on(RunDirectory(run.path), path)
            except EngineError as error:
                refused += "changed.pt" in str(error)
            except Exception as error:
                raise AssertionError(f"{at} is {new}: {error!r}") from error
    assert refused > len(where)


def test_a_broken_step_of_other_content(small, cpu, tmp_path):
    net = small.make_net()
    failure = {
        "model": net.state_dict(), "batch": small.make_batch(0), "totals": [], "place": [0, 1], "seed": 3, "step": 7,
        "lr": 0.1, "precision": "fp32", "loss_scale": None, "terms": {"loss_class": 1.0}, "config": {"a": 1},
    }  # fmt: skip
    path = tmp_path / "step-8.pt"
    checkpoint.save(path, {"failure": failure})
    assert replay(path, lambda config: small.make_net(), cpu).is_finite
    assert set(failure) == set(content.FAILURE)
    refused = 0
    for at in places(failure, 2):
        for new in [MISSING, *WRONG]:
            checkpoint.save(path, {"failure": replaced(failure, at, new)})
            try:
                replay(path, lambda config: small.make_net(), cpu)
            except EngineError as error:
                refused += "step-8.pt" in str(error)
            except Exception as error:
                raise AssertionError(f"{at} is {new}: {error!r}") from error
    assert refused > 100
