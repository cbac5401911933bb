import torch

from det_heads.parts import WHOLE, BatchPart


def test_of_the_whole_batch_a_count_is_at_least_one():
    assert WHOLE.denominator(torch.tensor(0)) == 1
    assert WHOLE.denominator(torch.tensor(7)) == 7


def test_the_mean_of_the_parts_is_that_of_the_whole():
    sums, counts = torch.tensor([3.0, 0.0, 5.0, 1.0]), torch.tensor([2, 0, 4, 1])
    parts = [BatchPart(index, 4, lambda _: counts.float().mean()) for index in range(4)]
    losses = [sums[part.index] / part.denominator(counts[part.index]) for part in parts]
    torch.testing.assert_close(torch.stack(losses).mean(), sums.sum() / counts.sum())
    # One thing at least in all parts together.
    assert BatchPart(0, 4, lambda number: number.float()).denominator(torch.tensor(0)) == 1 / 4


def test_each_part_takes_its_rows():
    torch.manual_seed(1)
    whole = WHOLE.random_keys(6, 5, torch.device("cpu"))
    rows = []
    for index in range(3):
        torch.manual_seed(1)
        rows.append(BatchPart(index, 3, lambda number: number).random_keys(2, 5, torch.device("cpu")))
    assert torch.equal(torch.cat(rows), whole)


def test_other_numbers_may_decide():
    part = BatchPart(1, 2, draw=lambda shape, _device: torch.arange(shape[0] * shape[1]).view(shape) / 100)
    assert part.random_keys(1, 3, torch.device("cpu")).tolist() == torch.tensor([[0.03, 0.04, 0.05]]).tolist()
