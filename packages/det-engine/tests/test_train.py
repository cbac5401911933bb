import itertools
import json
import math
import signal

import pytest
import torch
from torch import Tensor, nn

from det_engine import EngineError, RunDirectory, TrainSettings, checkpoint, draw_curves, read_metrics, train
from det_engine.watchdog import Watchdog

TIMES = {"images_per_second", "step_seconds", "data_seconds", "host_seconds", "peak_memory_mib", "seconds"}


@pytest.fixture
def fit(small, cpu):
    """Train the small net; every argument of `train` can be replaced."""

    def run_it(path, *, model=None, settings=None, resume=None, steps=40, evaluate=True, **changes):
        model = model or small.make_net()
        run = RunDirectory(path) if path.exists() else small.make_run(path)
        fields = {"log_interval": 7, "checkpoint_interval": 0, "evaluation_interval": 10, "display": "none"}
        arguments = {
            "solver": small.make_solver(steps),
            "batches": small.make_batches,
            "batch_size": 4,
            "device": cpu,
            "run": run,
            "settings": TrainSettings(**{**fields, **(settings or {})}),
            "evaluate": small.make_evaluate(model) if evaluate is True else evaluate,
            "resume": resume,
        }
        result = train(model, **{**arguments, **changes})
        return model, result, run

    return run_it


def lines(run):
    """The metrics without times."""
    return [{key: value for key, value in line.items() if key not in TIMES} for line in read_metrics(run.metrics)]


def test_it_learns_and_leaves_a_run(fit, small, tmp_path):
    def batches(step):
        return (small.make_batch(number, size=32) for number in itertools.count(step))

    _, result, run = fit(
        tmp_path / "run", steps=200, batches=batches, batch_size=32, config={"a": (1, 2)}, data_fingerprint="abc"
    )
    assert result.metrics["task/accuracy"] > 0.8
    assert result.steps == 200
    assert result.images_per_second == pytest.approx(6400 / result.seconds)
    results = json.loads(run.results.read_text())
    assert results["task"] == {"accuracy": result.metrics["task/accuracy"]}
    assert results["images_per_second"] > 0
    assert {entry.name for entry in run.checkpoints.iterdir()} == {"last.pt", "previous.pt", "best.pt"}
    assert any(run.tensorboard.iterdir())
    saved = checkpoint.load(run.last)
    assert saved["config"] == {"a": [1, 2]}
    assert saved["data_fingerprint"] == "abc"
    assert [entry["step"] for entry in saved["history"]] == list(range(10, 201, 10))


def test_logged_losses_are_the_means_of_their_interval(fit, tmp_path):
    _, _, every = fit(tmp_path / "every", settings={"log_interval": 1}, steps=20)
    _, _, sevens = fit(tmp_path / "sevens", settings={"log_interval": 7}, steps=20)
    single = {line["step"]: line for line in lines(every) if line["kind"] == "train"}
    grouped = {line["step"]: line for line in lines(sevens) if line["kind"] == "train"}
    assert list(grouped) == [7, 14, 20]
    for last, steps in ((7, range(1, 8)), (14, range(8, 15)), (20, range(15, 21))):
        for name in ("loss", "loss_class", "loss_size", "grad_norm"):
            mean = sum(single[step][name] for step in steps) / len(steps)
            assert grouped[last][name] == pytest.approx(mean)
    assert single[8]["learning_rate"] < single[9]["learning_rate"] == 0.1


@pytest.mark.parametrize("stop", [3, 7, 10, 13, 35])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_resumed_equals_uninterrupted(fit, small, tmp_path, stop, precision):
    """Momentum, warm-up, milestones, dropout, batch statistics, loss scale and half-filled log intervals included."""
    settings = {"precision": precision}
    _, _, whole = fit(tmp_path / "whole", settings=settings)

    class Stop(Exception):
        pass

    def batches(step):
        for batch in small.make_batches(step):
            if step == stop + 2:
                raise Stop
            yield batch
            step += 1

    part = tmp_path / "part"
    with pytest.raises(Stop):
        fit(part, settings={**settings, "checkpoint_interval": stop}, batches=batches)
    # Another seed in between: nothing may come from the process.
    torch.manual_seed(99)
    torch.rand(5)
    _, _, resumed = fit(part, settings=settings, resume=part, model=small.make_net(seed=5))
    assert small.checkpoint_differences(whole.last, resumed.last) == []
    assert small.checkpoint_differences(whole.best, resumed.best) == []
    assert lines(whole) == lines(resumed)


def test_data_that_fail_cost_no_step(fit, small, tmp_path):
    """A picture that turns out to be broken after hours leaves a checkpoint of all steps before it."""
    _, _, whole = fit(tmp_path / "whole", evaluate=None)

    def batches(step):
        yield from itertools.islice(small.make_batches(step), 17 - step)
        raise OSError("a broken picture")

    path = tmp_path / "part"
    with pytest.raises(OSError, match="a broken picture"):
        fit(path, evaluate=None, batches=batches)
    run = RunDirectory(path)
    assert checkpoint.load(run.last)["step"] == 17
    saved = run.last.read_bytes()
    with pytest.raises(OSError, match="a broken picture"):  # again, at once: what is there stays
        fit(path, evaluate=None, batches=batches, resume=path)
    assert run.last.read_bytes() == saved
    assert not run.previous.exists()
    _, _, resumed = fit(path, evaluate=None, resume=path)
    assert small.checkpoint_differences(whole.last, resumed.last) == []


def test_evaluating_and_logging_do_not_move_the_training(fit, tmp_path):
    one, _, _ = fit(tmp_path / "one", settings={"evaluation_interval": 3, "log_interval": 1})
    two, _, _ = fit(tmp_path / "two", evaluate=None, settings={"checkpoint_interval": 11})
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_seed_matters(fit, tmp_path):
    one, _, _ = fit(tmp_path / "one", steps=5)
    two, _, _ = fit(tmp_path / "two", steps=5, settings={"seed": 1})
    assert not torch.equal(one.head.weight, two.head.weight)


def test_resuming_a_finished_run_only_reports(fit, tmp_path):
    path = tmp_path / "run"
    fit(path)
    before = lines(RunDirectory(path))
    _, result, run = fit(path, resume=path)
    assert result.steps == 40
    assert lines(run) == before


def test_a_longer_schedule_goes_on(fit, tmp_path, capsys):
    path = tmp_path / "run"
    fit(path, config={"solver": {"steps": 40}})
    _, result, run = fit(path, resume=path, steps=60, config={"solver": {"steps": 60}}, settings={"display": "plain"})
    assert result.steps == 60
    assert "changed since that checkpoint: solver.steps 40 -> 60" in capsys.readouterr().out
    assert [line["step"] for line in lines(run) if line["kind"] == "train"] == [7, 14, 21, 28, 35, 40, 42, 49, 56, 60]


def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(fit, small, tmp_path, capsys):
    path = tmp_path / "run"
    _, _, whole = fit(tmp_path / "whole")
    fit(path)
    run = RunDirectory(path)
    run.last.write_bytes(run.last.read_bytes()[:-1000])
    _, _, resumed = fit(path, resume=path, settings={"display": "plain"})
    out = capsys.readouterr().out
    assert "last.pt" in out
    assert "previous.pt at step" in out
    # The one before was written at the same step, before the last evaluation.
    assert small.differences(checkpoint.load(whole.last)["model"], checkpoint.load(resumed.last)["model"]) == []
    assert lines(whole) == lines(resumed)


def test_the_last_good_checkpoint_is_never_replaced_by_a_damaged_one(fit, small, tmp_path, monkeypatch):
    """`last` is damaged, the run goes on from `previous`, and is killed within the next save."""
    path = tmp_path / "run"
    fit(path, evaluate=None, settings={"checkpoint_interval": 20})
    run = RunDirectory(path)
    damaged = run.last.read_bytes()[:-1000]
    run.last.write_bytes(damaged)
    good = run.previous.read_bytes()

    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(path), "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(run.last, small.make_net().state_dict(), keep=run.previous)
    monkeypatch.undo()
    assert run.previous.read_bytes() == good
    _, result, _ = fit(path, evaluate=None, resume=path)
    assert result.steps == 40
    assert checkpoint.load(run.previous)["step"] in (20, 40)


def test_a_run_that_was_killed_before_its_best_was_named_has_it_after_the_resume(fit, small, tmp_path, capsys):
    path = tmp_path / "run"
    fit(path)
    run = RunDirectory(path)
    run.best.unlink()
    leftover = run.checkpoints / "best.pt.linking"
    leftover.touch()
    state = checkpoint.load(run.last)
    best = {**state["best"], "step": 40}
    checkpoint.save(run.last, {**state, "best": best})
    _, result, _ = fit(path, resume=path)
    assert result.best == best
    assert checkpoint.load(run.best)["best"] == best
    assert not leftover.exists()

    # Where it cannot be had any more, it is chosen anew, and that is said.
    run.best.unlink()
    checkpoint.save(run.last, {**state, "best": {"metric": "task/accuracy", "value": 1.0, "step": 10}})
    _, result, _ = fit(path, resume=path, steps=50, settings={"display": "plain"})
    assert (
        "best.pt is missing or damaged, which was the best (task/accuracy 1.0000 at step 10)" in capsys.readouterr().out
    )
    assert result.best["step"] == 50
    assert checkpoint.load(run.best)["step"] == 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "adamw"}, r"is of sgd, and this training's solver\.optimizer is adamw"),
        (
            {"bias_lr_factor": 2.0},
            "has 2 groups of parameters, and the model 4",
        ),
    ],
)
def test_another_optimizer_is_said(fit, small, tmp_path, change, message):
    fit(tmp_path / "run", steps=10)
    with pytest.raises(EngineError, match=message):
        fit(tmp_path / "run", resume=tmp_path / "run", solver=small.make_solver(20, **change))


def test_other_frozen_layers_are_said(fit, small, tmp_path):
    fit(tmp_path / "run", steps=10)
    frozen = small.make_net()
    frozen.body[0].requires_grad_(False)
    message = r"2 parameters are frozen now that were trained, such as body\.0\.bias\..* \(settings\.freeze, or"
    with pytest.raises(EngineError, match=message):
        fit(tmp_path / "run", resume=tmp_path / "run", model=frozen)


def test_what_cannot_be_resumed(fit, small, tmp_path):
    path = tmp_path / "run"
    fit(path, data_fingerprint="coco")
    with pytest.raises(EngineError, match=r"other data \(fingerprint coco, now pennfudan\)"):
        fit(path, resume=path, data_fingerprint="pennfudan")
    with pytest.raises(
        EngineError, match=r"another architecture: .*body\.0\.weight is \(16, 8\) in the file and \(5, 8\)"
    ):
        fit(path, resume=path, data_fingerprint="coco", model=small.make_net(width=5))
    with pytest.raises(EngineError, match="at step 40, but the training ends at 30"):
        fit(path, resume=path, data_fingerprint="coco", steps=30)
    with pytest.raises(EngineError, match=r"nothing\.pt is not there"):
        fit(path, resume=tmp_path / "nothing.pt", data_fingerprint="coco")
    checkpoint.save(tmp_path / "weights.pt", {"model": {}})
    with pytest.raises(EngineError, match="cannot be resumed: it holds no optimizer, scaler"):
        fit(path, resume=tmp_path / "weights.pt")


def test_best_is_the_best_and_not_the_last(fit, tmp_path):
    values = iter([0.1, 0.7, math.nan, 0.7, 0.3])
    _, result, run = fit(
        tmp_path / "up", steps=50, evaluate=lambda: {"other": 1.0, "AP": next(values)}, settings={"best_metric": "AP"}
    )
    assert result.best == {"metric": "AP", "value": 0.7, "step": 20}
    assert checkpoint.load(run.best)["step"] == 20
    assert checkpoint.load(run.last)["step"] == 50
    values = iter([3.0, 1.0, 2.0])
    settings = {"best_is_highest": False}
    _, result, _ = fit(tmp_path / "down", steps=30, evaluate=lambda: {"loss": next(values)}, settings=settings)
    assert result.best == {"metric": "loss", "value": 1.0, "step": 20}


def test_a_best_metric_that_is_not_evaluated(fit, tmp_path):
    with pytest.raises(EngineError, match="best_metric is 'AP', but the evaluation gives task/accuracy"):
        fit(tmp_path / "run", settings={"best_metric": "AP"})


class Breaking(nn.Module):
    """The small net, one of whose losses turns into `value` at step `step` (the first is 1)."""

    def __init__(self, net, step, value):
        super().__init__()
        self.net, self.step, self.value, self.calls = net, step, value, 0

    def forward(self, batch):
        losses = self.net(batch)
        if self.training:
            self.calls += 1
            if self.calls == self.step:
                losses["loss_class"] = losses["loss_class"] * self.value
        return losses


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_says_what_and_where(fit, small, tmp_path, value):
    path = tmp_path / "run"
    with pytest.raises(EngineError) as error:
        fit(path, model=Breaking(small.make_net(), 17, value), settings={"log_interval": 50})
    message = str(error.value)
    assert f"not finite at step 17: loss_class = {value} (loss_size = 0." in message
    assert "Images of that step: 1600, 1601, 1602, 1603." in message
    assert "Learning rate 0.1, precision fp32, no loss scale." in message
    assert f"the last good checkpoint is {path / 'checkpoints' / 'last.pt'}" in message
    saved = checkpoint.load(path / "checkpoints" / "last.pt")
    assert saved["step"] == 10
    assert all(torch.isfinite(tensor).all() for tensor in saved["model"].values())


def test_weights_that_are_not_finite_are_never_saved(fit, small, tmp_path):
    class Exploding(Breaking):
        def forward(self, batch):
            losses = self.net(batch)
            if self.training:
                self.calls += 1
                if self.calls == self.step:
                    # Zero, but its gradient is not a number.
                    losses["loss_size"] = losses["loss_size"] + (self.net.head.bias * 0).sum().sqrt()
            return losses

    with pytest.raises(
        EngineError, match=r"gradients are not finite at step 10 .*finite values.*there is no checkpoint yet"
    ):
        fit(tmp_path / "run", model=Exploding(small.make_net(), 10, None))


def test_nothing_is_read_from_the_device_between_log_lines(fit, small, tmp_path, monkeypatch):
    reads = []
    for name in ("item", "tolist", "cpu", "__bool__", "__float__", "__int__", "__index__"):
        original = getattr(Tensor, name)

        def counted(self, *args, _original=original, _name=name, **kwargs):
            reads.append(_name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(Tensor, name, counted)

    at_step = []

    class Watched(Breaking):
        def forward(self, batch):
            at_step.append(len(reads))
            return self.net(batch)

    def batches(step):
        batch = small.make_batch(0)
        while True:
            yield batch

    fit(
        tmp_path / "run",
        model=Watched(small.make_net(), 0, None),
        batches=batches,
        evaluate=None,
        steps=12,
        settings={"precision": "fp16", "log_interval": 6},
    )
    assert len(set(at_step[:6])) == 1
    assert len(set(at_step[6:])) == 1
    # The counter does count: the log line read.
    assert at_step[6] > at_step[5]


def test_data_that_end_too_early(fit, small, tmp_path):
    with pytest.raises(EngineError, match="ended at step 3 of 40"):
        fit(tmp_path / "run", batches=lambda step: iter([small.make_batch(0)] * 3))


def test_the_data_iterator_is_closed(fit, small, tmp_path):
    closed = []

    def batches(step):
        try:
            yield from small.make_batches(step)
        finally:
            closed.append(True)

    fit(tmp_path / "run", batches=batches)
    assert closed == [True]


def test_careless_random_data_are_new_in_every_step(fit, small, tmp_path):
    seen = []

    def batches(step):
        while True:
            seen.append(float(torch.rand(())))
            yield small.make_batch(step)

    fit(tmp_path / "run", batches=batches)
    assert len(set(seen)) == 40


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: x.sum(), "must return a dict of scalar losses, got Tensor"),
        (lambda x: {}, "must return a dict of scalar losses"),
        (lambda x: {"loss": x}, r"Loss loss must be a scalar tensor, got shape \(4, 16\)"),
        (lambda x: {"loss": 3.0}, "Loss loss must be a scalar tensor, got float"),
    ],
)
def test_models_that_return_something_else(fit, tmp_path, output, message):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 16)

        def forward(self, batch):
            return output(self.layer(batch["x"]))

    with pytest.raises(EngineError, match=message):
        fit(tmp_path / "run", model=Odd(), evaluate=None)


def test_a_list_or_a_loader_of_batches(fit, small, tmp_path):
    """They are gone through again and again; shuffled by epoch, and the same after a resume."""
    rows = [{name: value[0] for name, value in small.make_batch(n).items() if name != "image_ids"} for n in range(30)]
    loader = torch.utils.data.DataLoader(rows, batch_size=4, shuffle=True, drop_last=True)
    whole, _, _ = fit(tmp_path / "whole", batches=loader, steps=20)
    part = tmp_path / "part"
    fit(part, batches=loader, steps=10)
    resumed, _, _ = fit(part, batches=loader, steps=20, resume=part)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    listed, _, _ = fit(tmp_path / "list", batches=list(loader), steps=20)
    assert not torch.equal(listed.head.weight, whole.head.weight)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (lambda small: iter([small.make_batch(0)]), r"iterated over again and again, .* got list_iterator"),
        (lambda small: 3, "got int"),
        (lambda small: [], "The data ended at step 0"),
        (lambda small: [tuple(small.make_batch(0).values())], r"must be a dict of tensors .* got tuple; .* collate_fn"),
        (lambda small: [{**small.make_batch(0), "names": ["a"]}], "must hold tensors alone, but 'names' is list"),
        (lambda small: lambda step: [small.make_batch(0)] * 3, "The data ended at step 3 of 40"),
        (lambda small: lambda step: None, "must give an iterator"),
    ],
)
def test_batches_of_other_kinds(fit, small, tmp_path, batches, message):
    with pytest.raises(EngineError, match=message):
        fit(tmp_path / "run", batches=batches(small))


@pytest.mark.parametrize("found", [None, 0.5, {"AP": "high"}, {"AP": torch.ones(3)}, {"AP": None}])
def test_evaluations_that_return_something_else(fit, tmp_path, found):
    with pytest.raises(EngineError, match=r"evaluate must return (metrics|numbers) by name"):
        fit(tmp_path / "run", evaluate=lambda: found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": "runs/x"}, "run must be a RunDirectory, .* got str"),
        ({"solver": {"steps": 3}}, "solver must be a SolverConfig, got dict"),
        ({"batch_size": 4.0}, "batch_size must be a whole number, got float"),
        ({"resume": 5}, "resume must be a checkpoint file or the directory of a run, got int"),
        ({"evaluate": 0.5}, "evaluate must be a function without arguments, got float"),
        ({"pictures": lambda: None}, "pictures must return pictures by name, got NoneType"),
    ],
)
def test_arguments_of_other_kinds(fit, tmp_path, change, message):
    with pytest.raises(EngineError, match=message):
        fit(tmp_path / "run", **change)


def test_a_detached_loss(fit, small, tmp_path):
    class Detached(Breaking):
        def forward(self, batch):
            return {name: value.detach() for name, value in self.net(batch).items()}

    with pytest.raises(EngineError, match=r"None of the losses \(loss_class, loss_size\) depends on a parameter"):
        fit(tmp_path / "run", model=Detached(small.make_net(), 0, None), evaluate=None)


def test_losses_that_change_their_names(fit, tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 1)
            self.calls = 0

        def forward(self, batch):
            self.calls += 1
            return {f"loss_{self.calls // 3}": self.layer(batch["x"]).sum()}

    with pytest.raises(EngineError, match=r"returned the losses \['loss_1'\] after \['loss_0'\]"):
        fit(tmp_path / "run", model=Odd(), evaluate=None)


def test_a_full_disk_ends_the_run_with_the_old_checkpoint(fit, small, tmp_path, monkeypatch):
    path = tmp_path / "run"
    original = checkpoint.SealingWriter.write
    saved = []

    def write(self, data):
        if len(saved) >= 2:
            raise OSError(28, "No space left on device")
        return original(self, data)

    def seal(self):
        saved.append(True)
        original_seal(self)

    original_seal = checkpoint.SealingWriter.seal
    monkeypatch.setattr(checkpoint.SealingWriter, "write", write)
    monkeypatch.setattr(checkpoint.SealingWriter, "seal", seal)
    with pytest.raises(EngineError, match="No space left on device; the checkpoint written before is intact"):
        fit(path)
    monkeypatch.undo()
    assert checkpoint.load(path / "checkpoints" / "last.pt")["step"] == 10
    _, result, _ = fit(path, resume=path)
    assert result.steps == 40


def test_a_disk_that_is_full_for_events_too(fit, tmp_path, monkeypatch):
    """TensorBoard's thread fails, and says so in a later call, or when it is closed."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, limits[1]))
        with pytest.raises(EngineError, match=r"Cannot write .*(tensorboard|metrics\.jsonl): File too large"):
            fit(tmp_path / "run", steps=200, evaluate=None, settings={"log_interval": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(("change", "name"), [({"log_interval": 0}, "log_interval"), ({"precision": "fp8"}, "fp8")])
def test_wrong_settings(fit, tmp_path, change, name):
    with pytest.raises(EngineError, match=name):
        fit(tmp_path / "run", settings=change)


def test_patience_ends_a_training_that_gets_no_better(fit, tmp_path, capsys):
    values = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.1])
    settings = {"patience": 2, "display": "plain"}
    _, result, run = fit(tmp_path / "run", steps=100, evaluate=lambda: {"AP": next(values)}, settings=settings)
    assert result.steps == 40
    assert "stopping at step 40: 2 evaluations without a better AP than 0.5000 at step 20" in capsys.readouterr().out
    assert checkpoint.load(run.last)["step"] == 40


def test_held_out_losses_decide_on_the_best(fit, small, tmp_path):
    """And they move neither batch statistics nor random numbers."""
    settings = {"validation_batches": 3, "best_metric": "validation/loss", "best_is_highest": False}
    one, result, run = fit(
        tmp_path / "one", steps=20, validation=lambda: small.make_batches(10**6), settings=settings, evaluate=None
    )
    assert result.best["metric"] == "validation/loss"
    history = checkpoint.load(run.last)["history"]
    assert [entry["step"] for entry in history] == [10, 20]
    terms = history[0]["validation/loss_class"] + history[0]["validation/loss_size"]
    assert history[0]["validation/loss"] == pytest.approx(terms)
    two, _, _ = fit(tmp_path / "two", steps=20, evaluate=None)
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_every_batch_of_an_evaluation_is_a_movement(fit, small, tmp_path, monkeypatch):
    phases = []
    monkeypatch.setattr(Watchdog, "at", lambda self, step, phase: phases.append(phase))
    model = small.make_net()

    def evaluate():
        for number in range(5):
            model(small.make_batch(number))
        return {"x": 1.0}

    fit(tmp_path / "run", model=model, steps=10, evaluate=evaluate)
    assert phases.count("evaluation") == 1 + 5


def test_the_average_is_what_is_evaluated_and_kept(fit, small, tmp_path):
    seen = []
    model = small.make_net()

    def evaluate():
        seen.append(model.head.weight.detach().clone())
        return {"x": 1.0}

    fit(tmp_path / "run", model=model, solver=small.make_solver(10, ema_decay=0.7), evaluate=evaluate)
    state = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")
    assert torch.equal(seen[0], state["average"]["head.weight"])
    assert torch.equal(model.head.weight, state["model"]["head.weight"])
    assert not torch.equal(seen[0], model.head.weight)
    assert torch.equal(checkpoint.weights(state)["head.weight"], seen[0])


def test_every_nth_checkpoint_is_kept(fit, tmp_path):
    _, _, run = fit(tmp_path / "run", settings={"keep_interval": 15})
    kept = {path.name for path in run.checkpoints.iterdir()}
    assert kept == {"last.pt", "previous.pt", "best.pt", "step-15.pt", "step-30.pt"}
    assert [checkpoint.load(run.checkpoints / f"step-{step}.pt")["step"] for step in (15, 30)] == [15, 30]


def test_parts_that_are_frozen_stay_to_the_last_bit(fit, small, tmp_path):
    """Statistics of batch norm among them, whatever switches between training and evaluation."""
    before = small.make_net().state_dict()
    settings = {"freeze": ("body.*",), "validation_batches": 1}
    model, _, _ = fit(tmp_path / "run", settings=settings, validation=lambda: small.make_batches(10**6))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("body."), name
    with pytest.raises(
        EngineError, match=r"settings\.freeze has the pattern 'neck\.\*', .* names begin with body, head"
    ):
        fit(tmp_path / "other", settings={"freeze": ("neck.*",)})


def test_a_run_that_goes_on_says_what_is_not_as_it_was(fit, tmp_path, capsys):
    path, threads = tmp_path / "run", torch.get_num_threads()
    values = iter([0.9, 0.1, 0.2])
    fit(
        path,
        steps=10,
        surroundings={"held-out annotations": "a", "pictures": "x"},
        evaluate=lambda: {"AP": next(values)},
    )
    settings = {"display": "plain"}
    torch.set_num_threads(threads + 1)
    try:
        _, result, _ = fit(
            path, steps=30, resume=path, settings=settings, evaluate=lambda: {"AP": next(values)},
            surroundings={"held-out annotations": "b", "pictures": "x"},
        )  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert f"computed otherwise than before that checkpoint (threads {threads} -> {threads + 1})" in out
    assert "not what it was at that checkpoint: held-out annotations\n" in out
    assert "the best is chosen anew; it was AP 0.9000 at step 10" in out
    assert result.best == {"metric": "AP", "value": 0.2, "step": 30}


def test_results_that_are_not_the_best_say_so(fit, tmp_path, capsys):
    values = iter([0.1, 0.7, 0.3])
    fit(tmp_path / "run", steps=30, evaluate=lambda: {"AP": next(values)}, settings={"display": "plain"})
    out = capsys.readouterr().out
    assert "the results are those of step 30 with AP 0.3000; the best, AP 0.7000, was at step 20: " in out


def test_batch_norm_that_sees_parts_is_said(fit, small, tmp_path, capsys):
    settings = {"accumulate": 2, "display": "plain"}
    fit(tmp_path / "parts", steps=2, settings=settings)
    assert "batch norm sees 2 images at a time and not the 4 of a step" in capsys.readouterr().out
    fit(tmp_path / "frozen", steps=2, settings={**settings, "freeze": ("body.*",)})
    fit(tmp_path / "whole", steps=2, settings={"display": "plain"})
    assert "batch norm" not in capsys.readouterr().out


def test_damaged_lines_of_the_log_are_set_aside(fit, tmp_path, capsys):
    path = tmp_path / "run"
    _, _, run = fit(path, steps=20)
    good = run.metrics.read_bytes()
    bad = [b"\xff\xfe", b'{"kind": "train", "step": "7"}', b"[1]", b"{" * 5000, b"null"]
    run.metrics.write_bytes(good + b"\n".join(bad) + b'\n{"kind": "tr')
    fit(path, steps=30, resume=path, settings={"display": "plain"})
    assert "5 damaged lines of metrics.jsonl are set aside in metrics.damaged.jsonl" in capsys.readouterr().out
    assert run.metrics.read_bytes().startswith(good)
    assert (path / "metrics.damaged.jsonl").read_bytes().splitlines() == bad


def test_the_curves_of_a_run(fit, tmp_path):
    _, _, run = fit(tmp_path / "run", steps=20)
    draw_curves(run)
    assert run.curves.read_bytes().startswith(b"\x89PNG")


def test_another_batch_goes_on_where_as_many_images_were_seen(fit, small, tmp_path, capsys):
    path = tmp_path / "run"
    fit(path, steps=20)
    settings = {"display": "plain"}
    _, result, run = fit(path, resume=path, batch_size=8, steps=15, settings=settings)
    assert "a step has 8 images now and had 4: step 20 is now step 10" in capsys.readouterr().out
    assert result.steps == 15
    assert checkpoint.load(run.last)["images"] == 20 * 4 + 5 * 8


def test_o2_has_half_weights_float32_norms_and_float32_checkpoints(fit, small, tmp_path):
    model, _, run = fit(tmp_path / "run", steps=12, evaluate=None, settings={"precision": "O2", "loss_scale": 128.0})
    kinds = {name: value.dtype for name, value in model.named_parameters()}
    assert kinds["head.weight"] == kinds["body.0.weight"] == torch.float16
    assert kinds["body.1.weight"] == torch.float32
    state = checkpoint.load(run.last)["model"]
    assert all(value.dtype == torch.float32 for name, value in state.items() if "num_batches" not in name)
    assert torch.equal(state["head.weight"].half(), model.head.weight)
    plain, _, _ = fit(tmp_path / "plain", steps=12)
    torch.testing.assert_close(state["head.weight"], plain.head.weight.detach(), rtol=0.05, atol=5e-3)
