import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from det_coco import Augmentation, BatchShape, DataError, Resize, from_samples, train_loader
from det_coco.sampler import EvalSampler, TrainSampler, group_images, repeat_factors


def sampler(sizes=(13, 7), **options) -> TrainSampler:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return TrainSampler(np.arange(len(groups)), groups, **{"batch_size": 2, **options})


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 5),
    st.integers(0, 200),
)
def test_processes_share_the_global_batch(sizes, batch_size, world, seed, number):
    whole = sampler(sizes, batch_size=batch_size * world, seed=seed).batch(number)
    parts = [
        sampler(sizes, batch_size=batch_size, rank=r, world_size=world, seed=seed).batch(number) for r in range(world)
    ]
    assert sum((p.positions for p in parts), ()) == whole.positions
    assert sum((p.epochs for p in parts), ()) == whole.epochs


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 5), st.integers(0, 5))
def test_a_period_uses_each_image_equally(sizes, batch_size, seed):
    images = sum(sizes)
    own = sampler(sizes, batch_size=batch_size, seed=seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    used = []
    for number in range(images):
        key = own.batch(number)
        assert len({groups[p] for p in key.positions}) == 1
        used += zip(key.positions, key.epochs, strict=True)
    assert len(set(used)) == len(used)
    assert (np.bincount([p for p, _ in used], minlength=images) == batch_size).all()


def test_an_epoch_has_no_repetition_and_groups_take_turns():
    own = sampler((60, 40), batch_size=1)
    positions = [own.batch(k).positions[0] for k in range(100)]
    assert sorted(positions) == list(range(100))
    share = np.cumsum(np.array(positions) < 60) - 0.6 * np.arange(1, 101)
    assert np.abs(share).max() < 2.5
    assert positions != sorted(positions)


def test_resumed_equals_uninterrupted():
    whole = iter(sampler(seed=3))
    keys = [next(whole) for _ in range(50)]
    resumed = iter(sampler(seed=3, start=20))
    assert [next(resumed) for _ in range(30)] == keys[20:]
    assert [k.number for k in keys] == list(range(50))


def test_seeds_and_epochs_differ():
    first = [sampler((50,), batch_size=1, seed=0).batch(k).positions for k in range(100)]
    assert first != [sampler((50,), batch_size=1, seed=1).batch(k).positions for k in range(100)]
    assert first[:50] != first[50:]
    assert {k for b in range(50) for k in sampler((50,), batch_size=1).batch(b).epochs} == {0}


def test_pickles():
    copy = pickle.loads(pickle.dumps(sampler()))
    assert copy.batch(11) == sampler().batch(11)


def test_wrong_use():
    with pytest.raises(DataError, match="no image to train on"):
        TrainSampler(np.zeros(0, dtype=int), np.zeros(0, dtype=int), batch_size=1)
    with pytest.raises(ValueError, match="rank must be between 0 and world_size - 1 = 1, got 2"):
        sampler(rank=2, world_size=2)
    with pytest.raises(ValueError, match="batch_size"):
        sampler(batch_size=0)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=3), st.integers(1, 5), st.integers(1, 4))
def test_evaluation_sees_each_image_once(sizes, batch_size, world):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    parts = [
        EvalSampler(np.arange(len(groups)), groups, batch_size=batch_size, rank=r, world_size=world)
        for r in range(world)
    ]
    assert len({len(p) for p in parts}) == 1
    keys = [key for p in parts for key in p]
    assert sorted(sum((k.positions for k in keys), ())) == list(range(len(groups)))
    assert all(len({groups[p] for p in k.positions}) <= 1 for k in keys)


def test_grouping(index):
    positions = np.arange(len(index))
    resize = Resize(shortest=(64, 77), longest=96)
    shape = BatchShape(buckets=((96, 96), (77, 96), (96, 77)))
    by_orientation = group_images(index, positions, resize, shape, "orientation")
    np.testing.assert_array_equal(by_orientation, index.widths > index.heights)
    assert len(set(group_images(index, positions, resize, shape, "bucket"))) == 2
    assert set(group_images(index, positions, resize, shape, "none")) == {0}


def test_images_that_fit_no_bucket_are_found_before_training(index):
    positions = np.arange(len(index))
    resize = Resize(shortest=(64, 80), longest=100)
    with pytest.raises(DataError, match=r"Image 1\d \(00000\d.jpg\): No bucket holds images of 79 x 100"):
        group_images(index, positions, resize, BatchShape(buckets=((64, 80), (100, 80))), "orientation")
    with pytest.raises(DataError, match=r"grouped by none may meet.*100 x 100 .*Add one of at least 128 x 128"):
        group_images(index, positions, resize, BatchShape(buckets=((80, 100), (100, 80))), "none")


def test_repeat_factors_are_those_of_lvis():
    """Ten images: class 0 in all, class 1 in two, class 2 in one that has nothing else but class 0; t = 0.5."""
    picture = np.zeros((8, 8, 3), np.uint8)
    classes = [[0], [0, 1], [0, 1], [0, 2], *[[0]] * 6]
    index = from_samples([(picture, [[0, 0, 4, 4]] * len(labels), labels) for labels in classes], ["a", "b", "c"])
    expected = np.ones(10)
    expected[[1, 2]], expected[3] = (0.5 / 0.2) ** 0.5, (0.5 / 0.1) ** 0.5
    np.testing.assert_allclose(repeat_factors(index, np.arange(10), 0.5), expected)
    # Of the images in use alone: class 1 is in one of four, class 0 is not rare.
    np.testing.assert_allclose(repeat_factors(index, np.array([0, 2, 4, 5]), 0.5), [1, 2**0.5, 1, 1])
    loader = train_loader(
        index,
        augmentation=Augmentation(resize=Resize(shortest=(32,), longest=64)),
        shape=BatchShape(buckets=((64, 64),), masks="none"),
        batch_size=1,
        repeat_threshold=0.5,
    )
    assert loader.batches_per_epoch == round(expected.sum())
    assert loader.num_images == 10


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 20), st.lists(st.floats(1, 6), min_size=2, max_size=30))
def test_images_are_repeated_by_their_factors(seed, factors):
    own = TrainSampler(
        np.arange(len(factors)), np.zeros(len(factors)), batch_size=1, seed=seed, factors=np.array(factors)
    )
    length, epochs = round(own.batches_per_epoch), 12
    assert length == round(sum(factors))
    used = [own.batch(k) for k in range(length * epochs)]
    counts = np.array(
        [
            np.bincount([k.positions[0] for k in used[e * length :][:length]], minlength=len(factors))
            for e in range(epochs)
        ]
    )
    scaled = np.array(factors) * length / sum(factors)
    assert (counts >= np.floor(scaled - 1e-9)).all()
    assert (counts <= np.ceil(scaled + 1e-9)).all()
    # No image has the same augmentation twice.
    assert len({(k.positions, k.epochs) for k in used}) == len(used)
    again = pickle.loads(pickle.dumps(own))
    assert [again.batch(k) for k in (3, length + 1)] == [used[3], used[length + 1]]


def test_the_mean_number_of_repetitions_is_the_factor():
    factors = np.array([1.0, 1.25, 2.5, 3.1, 1.0, 1.15])
    own = TrainSampler(np.arange(6), np.zeros(6), batch_size=1, factors=factors)
    counts = np.bincount([own.batch(k).positions[0] for k in range(10 * 400)], minlength=6) / 400
    np.testing.assert_allclose(counts, factors, atol=0.1)
