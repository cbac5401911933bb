import functools

import torch

from det_heads.parts import as_part, normalizer, rows_of_batch


def test_without_parts_a_count_is_at_least_one():
    assert normalizer(torch.tensor(0)) == 1
    assert normalizer(torch.tensor(7)) == 7


def test_the_mean_of_the_parts_is_that_of_the_whole():
    sums, counts = torch.tensor([3.0, 0.0, 5.0, 1.0]), torch.tensor([2, 0, 4, 1])
    parts = []
    for index in range(4):
        with as_part(index, 4, lambda _: counts.float().mean()):
            parts.append(sums[index] / normalizer(counts[index]))
    torch.testing.assert_close(torch.stack(parts).mean(), sums.sum() / counts.sum())
    with as_part(0, 4, lambda number: number.float()):
        assert normalizer(torch.tensor(0)) == 1 / 4  # one thing at least in all parts together


def test_each_part_takes_its_rows():
    draw = functools.partial(torch.rand, dtype=torch.float64)
    torch.manual_seed(1)
    whole = rows_of_batch(draw, (6, 5))
    rows = []
    for index in range(3):
        torch.manual_seed(1)
        with as_part(index, 3, lambda number: number):
            rows.append(rows_of_batch(draw, (2, 5)))
    assert torch.equal(torch.cat(rows), whole)
