import torch
from hypothesis import given
from hypothesis import strategies as st

from det_heads.packing import pack, unpack


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=4))
def test_used_slots_come_first_in_order_and_return_to_their_places(used):
    used = torch.tensor(used)
    packing = pack(used)
    values = torch.arange(used.numel())
    flat = used.flatten()
    assert packing.count == flat.sum()
    assert values[packing.order].tolist() == values[flat].tolist() + values[~flat].tolist()
    assert packing.used.tolist() == sorted(flat.tolist(), reverse=True)
    assert packing.images.tolist() == (packing.order // 3).tolist()
    assert unpack(values[packing.order], packing, used.shape).tolist() == values.view(used.shape).tolist()
