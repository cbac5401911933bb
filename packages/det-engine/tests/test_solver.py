from dataclasses import replace

import pytest

from det_engine import EngineError, SolverConfig, lr_at, scaled_to_batch

DETECTRON2 = SolverConfig()
MASKRCNN_BENCHMARK = SolverConfig(warmup_steps=500, warmup_factor=1 / 3, bias_lr_factor=2.0, bias_weight_decay=0.0)


def test_lr_of_detectron2_1x():
    assert lr_at(DETECTRON2, 0) == pytest.approx(0.02 / 1000)
    assert lr_at(DETECTRON2, 500) == pytest.approx(0.02 * (0.5 / 1000 + 0.5))
    assert lr_at(DETECTRON2, 999) < 0.02
    assert lr_at(DETECTRON2, 1000) == 0.02
    assert lr_at(DETECTRON2, 59_999) == 0.02
    assert lr_at(DETECTRON2, 60_000) == pytest.approx(0.002)
    assert lr_at(DETECTRON2, 79_999) == pytest.approx(0.002)
    assert lr_at(DETECTRON2, 89_999) == pytest.approx(0.0002)


def test_lr_of_maskrcnn_benchmark_1x():
    assert lr_at(MASKRCNN_BENCHMARK, 0) == pytest.approx(0.02 / 3)
    assert lr_at(MASKRCNN_BENCHMARK, 250) == pytest.approx(0.02 * 2 / 3)
    assert lr_at(MASKRCNN_BENCHMARK, 500) == 0.02


def test_lr_rises_evenly_and_then_only_falls():
    config = SolverConfig(base_lr=1.0, warmup_steps=10, warmup_factor=0.1, milestones=(15, 18), gamma=0.5, steps=20)
    values = [lr_at(config, step) for step in range(20)]
    assert values[:11] == pytest.approx([0.1 + 0.09 * step for step in range(11)])
    assert values[10:] == [1.0] * 5 + [0.5] * 3 + [0.25] * 2


def test_milestone_inside_the_warmup_counts_there_too():
    config = SolverConfig(base_lr=1.0, warmup_steps=4, warmup_factor=0.0, milestones=(2,), steps=4)
    assert [lr_at(config, step) for step in range(4)] == pytest.approx([0, 0.25, 0.05, 0.075])


def test_without_warmup_and_milestones_the_lr_is_constant():
    config = SolverConfig(warmup_steps=0, milestones=(), steps=5)
    assert {lr_at(config, step) for step in range(5)} == {0.02}


def test_scaling_gives_the_published_one_gpu_schedule():
    """mlcommons' single-GPU command: batch 2, lr 0.0025, 720k steps, milestones 480k and 640k."""
    scaled, line = scaled_to_batch(MASKRCNN_BENCHMARK, 2)
    assert scaled == replace(
        MASKRCNN_BENCHMARK,
        base_lr=0.0025,
        reference_batch=2,
        steps=720_000,
        milestones=(480_000, 640_000),
        warmup_steps=4000,
    )
    assert line == (
        "Batch 2 instead of 16: learning rate 0.02 -> 0.0025, steps 90000 -> 720000, "
        "milestones 60000/80000 -> 480000/640000, warm-up 500 -> 4000."
    )


def test_scaling_up_and_twice():
    scaled, _ = scaled_to_batch(DETECTRON2, 64)
    assert (scaled.base_lr, scaled.steps, scaled.milestones, scaled.warmup_steps) == (
        0.08,
        22_500,
        (15_000, 20_000),
        250,
    )
    again, line = scaled_to_batch(scaled, 64)
    assert again is scaled
    assert line == "Batch 64 as in the recipe: learning rate 0.08, 22500 steps."
    back, _ = scaled_to_batch(scaled, 16)
    assert back == DETECTRON2


def test_a_kept_warm_up_has_its_steps_and_its_first_rate():
    scaled, line = scaled_to_batch(DETECTRON2, 64, keep_warmup=True)
    assert (scaled.base_lr, scaled.steps, scaled.warmup_steps) == (0.08, 22_500, DETECTRON2.warmup_steps)
    assert lr_at(scaled, 0) == pytest.approx(lr_at(DETECTRON2, 0))
    assert "warm-up" not in line


def test_scaling_never_gives_an_empty_training():
    scaled, _ = scaled_to_batch(replace(DETECTRON2, steps=3, milestones=()), 1000)
    assert scaled.steps == 1


@pytest.mark.parametrize(
    "change",
    [
        {"base_lr": 0.0},
        {"base_lr": float("nan")},
        {"steps": 0},
        {"milestones": (80, 60)},
        {"momentum": 1.0},
        {"warmup_factor": 2.0},
        {"clip_norm": 0.0},
        {"reference_batch": 0},
    ],
)
def test_senseless_fields_are_named(change):
    (name,) = change
    with pytest.raises(EngineError, match=name):
        replace(DETECTRON2, **change)


def test_empty_batch_is_refused():
    with pytest.raises(EngineError, match="at least one image, got 0"):
        scaled_to_batch(DETECTRON2, 0)


def test_a_cosine_falls_from_the_warm_up_to_the_last_step():
    config = SolverConfig(
        base_lr=1.0, schedule="cosine", warmup_steps=10, warmup_factor=0.1, steps=110, final_factor=0.2
    )
    assert lr_at(config, 0) == pytest.approx(0.1)
    assert lr_at(config, 10) == pytest.approx(1.0)
    assert lr_at(config, 60) == pytest.approx(0.6)
    assert lr_at(config, 110) == pytest.approx(0.2)
    rates = [lr_at(config, step) for step in range(10, 111)]
    assert rates == sorted(rates, reverse=True)
