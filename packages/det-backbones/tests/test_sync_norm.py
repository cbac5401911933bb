import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from det_backbones import SyncBatchNorm2d

# Each of two processes takes its share of the batch (of different sizes) and saves what it got.
WORKER = """
import os, sys, torch, torch.distributed as dist
from det_backbones import SyncBatchNorm2d
folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
data = torch.load(f"{folder}/data.pt")
part = slice(0, 3) if rank == 0 else slice(3, 5)
norm = SyncBatchNorm2d(4)
norm.load_state_dict(data["state"])
x = data["x"][part].clone().requires_grad_()
y = norm.train()(x)
y.backward(data["upstream"][part])
torch.save({"y": y.detach(), "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad,
            "state": norm.state_dict()}, f"{folder}/{rank}.pt")
dist.barrier()
os._exit(0)  # without the ordinary end, which may cut off what the other one still reads
"""


@pytest.mark.slow
def test_two_processes_equal_one_with_the_whole_batch(tmp_path):
    norm = nn.BatchNorm2d(4)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
    x, upstream = torch.randn(5, 4, 6, 7) * 3 + 2, torch.randn(5, 4, 6, 7)
    torch.save({"state": norm.state_dict(), "x": x, "upstream": upstream}, tmp_path / "data.pt")
    workers = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(WORKER), str(tmp_path), str(rank)]) for rank in (0, 1)
    ]
    x.requires_grad_()
    y = norm.train()(x)
    y.backward(upstream)
    assert [worker.wait(900) for worker in workers] == [0, 0]
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    torch.testing.assert_close(torch.cat([part["y"] for part in parts]), y)
    torch.testing.assert_close(torch.cat([part["x"] for part in parts]), x.grad)
    torch.testing.assert_close(sum(part["weight"] for part in parts), norm.weight.grad)
    torch.testing.assert_close(sum(part["bias"] for part in parts), norm.bias.grad)
    for part in parts:
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(part["state"][name], value)


def test_one_process_is_batch_norm():
    norm, peer = SyncBatchNorm2d(4), nn.BatchNorm2d(4)
    x = torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(norm.train()(x), peer.train()(x))
    torch.testing.assert_close(norm.eval()(x), peer.eval()(x))
