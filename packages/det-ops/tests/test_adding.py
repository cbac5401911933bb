"""The worked example of ADDING.md, word for word: its files join the package, and its operator and backend serve."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "ADDING.md"

PRELUDE = """
import sys
from pathlib import Path
import torch
import det_ops, det_ops.reference
from det_ops import backends, _table
from det_ops.backends import cpu
root = Path(sys.argv[1]) / "det_ops"
for package in (det_ops, det_ops.reference, backends, cpu):  # as if the files lay in the package
    package.__path__.append(str(root / Path(*package.__name__.split(".")[1:])))
generator = torch.Generator().manual_seed(0)
def rows(function, device="cpu"):
    return [row[2:] for row in _table.table() if row[:2] == (function, device)]
"""

OPERATOR = """
cpu.BACKEND.kernels["box_means"] = "sums over rectangles"
from det_ops.box_means import box_means
corner = torch.rand(9, 2, generator=generator, dtype=torch.float64) * 12 - 2
boxes = torch.cat((corner, corner + torch.rand(9, 2, generator=generator, dtype=torch.float64) * 6), 1)
boxes[0] = torch.tensor([2.0, 1.0, 4.0, 3.0])
values = torch.rand(8, 10, generator=generator, dtype=torch.float64, requires_grad=True)
assert torch.allclose(box_means(values, boxes)[0], values[1:3, 2:4].mean())
results = []
for choice in ("auto", "reference"):
    with det_ops.kernels(choice):
        found = box_means(values, boxes)
        results.append((found.detach(), torch.autograd.grad(found.square().sum(), values)[0]))
        assert torch.autograd.gradcheck(lambda values: box_means(values, boxes), values)
        torch.library.opcheck(torch.ops.det_ops.box_means.default, (values, boxes))
        compiled = torch.compile(box_means, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(values, boxes), found)
torch.testing.assert_close(*results)
once = torch.autograd.grad(box_means(values, boxes).square().sum(), values, create_graph=True)[0]
try:
    once.sum().backward()
except RuntimeError as error:
    assert "box_means of det_ops is differentiable once" in str(error)
else:
    raise AssertionError("a second derivative was given")
assert rows("box_means") == [("C++", "sums over rectangles")]
assert rows("box_means", "npu") == [("reference", "a mask per box, static, no host read")]
assert det_ops.reference.box_means.box_means(values.to("meta"), boxes.to("meta")).shape == (9,)
"""

BACKEND = """
from det_ops.backends import numpy
labels = (torch.arange(60).reshape(3, 20) % 4 - 1).to(torch.int8)
keys = torch.rand(3, 20, generator=generator)
expected = det_ops.subsample(labels, keys, 9, 0.4)
backends.BACKENDS["cpu"] = numpy.BACKEND
backends.serving = {"cpu": numpy.BACKEND}
assert rows("subsample") == [("NumPy", "a sort of the keys of each image")]
assert rows("nms")[0][0] == "reference"
assert not hasattr(numpy, "sampling")  # not imported before a tensor asks for it
assert all(map(torch.equal, det_ops.subsample(labels, keys, 9, 0.4), expected))
assert numpy.sampling.sample
"""


def files() -> dict[str, str]:
    """The files that the guide shows, by path."""
    blocks = re.findall(r"```python\n# (\S+\.py)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return dict(blocks)


@pytest.mark.parametrize("example", [OPERATOR, BACKEND], ids=["operator", "backend"])
def test_what_the_guide_shows_works(example: str, tmp_path: Path) -> None:
    if not GUIDE.exists():
        pytest.skip(f"{GUIDE} is not there: the package is tested outside its repository")
    assert len(files()) == 5
    for path, text in files().items():
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    run = [sys.executable, "-c", PRELUDE + example, str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "DET_OPS_KERNELS"}
    ended = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
