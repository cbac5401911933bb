#!/bin/sh
# executorch 1.5.1, torch 2.14.1
#
# ExecuTorch writes a program that sorts without a word, and its runtime cannot load that program: none of its kernels is a sort,
# "error: 0x:14" is all that Python is told. A topk of all elements loads and runs, but leaves equal elements in any order, which a
# stable sort does not.
#
# Why a good guess is wrong: sort is in PyTorch's core operators, export, lowering and serialisation all succeed, and the lowering
# does refuse what it cannot write in other cases. The list of operators without a kernel is made when a program is loaded.
#
# Who meets it: everybody who exports a detector with its post-processing, which sorts scores; often on the device, at the very end.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check executorch==1.5.1 torch==2.14.1
"$folder/venv/bin/python" - 2> "$folder/log" <<'PYTHON'
import sys

import torch
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime


def program(function, given):
    class Network(torch.nn.Module):
        def forward(self, x):
            return function(x)

    return to_edge_transform_and_lower(torch.export.export(Network(), (given,))).to_executorch().buffer


def run(content, given):
    loaded = Runtime.get().load_program(content)
    try:
        return loaded.load_method("forward").execute([given])[0].tolist()
    except RuntimeError as error:
        return str(error)


x = torch.tensor([2.0, 3.0, 1.0])
written = program(lambda x: torch.sort(x, descending=True).values, x)
print(f"sort is written without a word; when it is loaded: {run(written, x)}")
print(f"topk of all elements: {run(program(lambda x: torch.topk(x, 3).values, x), x)}")
zeros = torch.zeros(40)
order = run(program(lambda x: torch.topk(x, 40).indices, zeros), zeros)
print(f"topk keeps the order of 40 equal elements: {order == sorted(order)}")
holds = "Failed to load method" in str(run(written, x)) and sorted(order) == list(range(40)) and order != sorted(order)
sys.exit(not holds)
PYTHON
