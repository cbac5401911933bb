"""Faults put into a training: what is said of them, what is kept, and how it goes on."""

import itertools
import math

import pytest
import torch
from torch import nn

from det_engine import EngineError, TrainSettings, checkpoint, read_metrics, replay, train


class Net(nn.Module):
    """Boxes to boxes; a logit that the data can make huge."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)
        nn.init.ones_(self.first.weight)

    def forward(self, batch):
        hidden = self.first(batch["boxes"])
        found = self.last(self.norm(hidden) + 0.1 * hidden)
        return {
            "loss_box": nn.functional.smooth_l1_loss(found.float(), batch["truth"]),
            "loss_class": 0.1 * found.exp().mean(),
        }


def batches(step, faults=None):
    for number in itertools.count(step):
        generator = torch.Generator().manual_seed(number)
        boxes = torch.rand(4, 4, generator=generator)
        batch = {"boxes": boxes, "truth": boxes.flip(1).clone(), "image_ids": 10 * number + torch.arange(4)}
        for name, value in (faults or {}).get(number, {}).items():
            batch[name][2] = value
        yield batch


@pytest.fixture
def fit(small, cpu):
    def run_it(path, faults=None, *, settings=None, model=None, **changes):
        torch.manual_seed(0)
        model = model or Net()
        run = small.make_run(path)
        fields = {"log_interval": 5, "checkpoint_interval": 5, "display": "plain"}
        solver = small.make_solver(20, base_lr=0.05, clip_norm=None)
        train(
            model,
            **{
                "solver": solver,
                "batches": lambda step: batches(step, faults),
                "batch_size": 4,
                "device": cpu,
                "run": run,
                "settings": TrainSettings(**{**fields, **(settings or {})}),
                **changes,
            },
        )
        return model, run

    return run_it


def test_a_bad_box(fit, cpu, tmp_path):
    with pytest.raises(EngineError) as error:
        fit(tmp_path / "run", {12: {"truth": math.nan}})
    message = str(error.value)
    assert "The loss is not finite at step 13: loss_box = nan (loss_class = 0." in message
    assert "Images of that step: 120, 121, 122, 123." in message
    assert "The batch itself is not finite in truth (of image 122)." in message
    assert "Every layer's output is finite" in message
    assert "Alone, it happens with image 122." in message
    bundle = tmp_path / "run" / "failures" / "step-13.pt"
    assert f"Repeat it with: replay {bundle}." in message
    finding = replay(bundle, lambda config: Net(), cpu)
    assert math.isnan(finding.terms["loss_box"])
    assert finding.inputs == ["truth (of image 122)"]
    assert finding.images[0][0] == 122
    # The weights in it are those before the step: ten steps are in the checkpoint, two more were made.
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")["step"] == 10
    assert all(t.isfinite().all() for t in checkpoint.load(bundle)["failure"]["model"].values())


def test_a_huge_logit_names_the_layer(fit, tmp_path):
    message = r"first layer whose output is not finite is first \(Linear, float32\).*it happens with image 72\."
    with pytest.raises(EngineError, match=message):
        fit(tmp_path / "run", {7: {"boxes": 3e38}})


def test_an_overflow_of_float16(fit, cpu, tmp_path):
    with pytest.raises(EngineError) as error:
        fit(tmp_path / "run", {7: {"boxes": 6e5}}, settings={"precision": "fp16", "loss_scale": 8.0})
    message = str(error.value)
    assert "at step 8" in message
    assert "(Linear, float16)" in message
    assert "precision fp16, loss scale 8." in message
    finding = replay(tmp_path / "run" / "failures" / "step-8.pt", lambda config: Net(), cpu)
    assert "float16" in finding.layer


def test_gradients_that_overflow_for_ever(fit, small, tmp_path):
    with pytest.raises(EngineError, match=r"The gradients are not finite at step 50"):
        fit(
            tmp_path / "run",
            settings={"precision": "fp16", "loss_scale": 1e38, "log_interval": 60},
            solver=small.make_solver(60),
        )


def test_an_exploding_loss(fit, tmp_path):
    with pytest.raises(EngineError, match=r"The loss explodes at step 8: .*The image of the largest loss is 72 \("):
        fit(tmp_path / "run", {7: {"truth": 1e6}}, settings={"explosion": 50.0})


def test_a_skipped_step_leaves_nothing_behind(fit, tmp_path, capsys):
    model, run = fit(tmp_path / "run", {7: {"boxes": 3e38}}, settings={"on_failure": "skip"})
    assert "Going on without step 8." in capsys.readouterr().out
    state = checkpoint.load(run.last)
    assert state["step"] == 20
    assert state["failures"] == 1
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    # Nineteen batches went into the statistics; the later ones of the interval were seen twice, and count once.
    assert int(model.norm.num_batches_tracked) == 19
    assert [line["step"] for line in read_metrics(run.metrics)] == [5, 10, 15, 20]


def test_a_captured_step_keeps_its_gradients_where_graphs_write(fit, tmp_path):
    model, places = Net(), []

    def faulty(step):
        for batch in batches(step, {7: {"boxes": 3e38}}):
            places.append([parameter.grad.data_ptr() for parameter in model.parameters()])
            yield batch

    fit(tmp_path / "run", settings={"on_failure": "skip", "capture": True}, model=model, batches=faulty)
    assert len(places) > 20
    assert all(place == places[0] for place in places)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_going_back_with_half_the_rate(fit, tmp_path, capsys):
    seen = []

    def once(step):
        for batch in batches(step):
            if batch["image_ids"][0] == 70:
                seen.append(True)
                if len(seen) <= 2:  # in the step, and when it is repeated to be explained
                    batch["truth"][0] = math.inf
            yield batch

    _, run = fit(tmp_path / "run", settings={"on_failure": "rollback"}, batches=once)
    assert "Going on from step 5 with 0.5 times the learning rate." in capsys.readouterr().out
    rates = {line["step"]: line["learning_rate"] for line in read_metrics(run.metrics)}
    assert list(rates) == [5, 10, 15, 20]
    assert rates[15] == pytest.approx(0.025)
    assert checkpoint.load(run.last)["lr_factor"] == 0.5


def test_a_training_that_breaks_again_and_again_is_given_up(fit, tmp_path):
    faults = {step: {"truth": math.nan} for step in range(3, 20)}
    with pytest.raises(EngineError, match=r"It was failure 11 of this training"):
        fit(tmp_path / "run", faults, settings={"on_failure": "skip", "log_interval": 1})


def test_what_is_no_bundle(cpu, tmp_path):
    checkpoint.save(tmp_path / "a.pt", {"model": {}})
    with pytest.raises(EngineError, match="is not what a broken training step leaves"):
        replay(tmp_path / "a.pt", lambda config: Net(), cpu)
