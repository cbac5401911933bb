"""The measurements of whole detectors run, at a size at which their figures mean nothing."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parents[1] / "tools" / "bench"
FEW = ["--size", "64", "96", "--batch", "1", "--warmup", "0", "--repeat", "1", "--threads", "1"]


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """Calls a measurement; the rows that it records."""
    monkeypatch.syspath_prepend(str(BENCH))
    threads, record = torch.get_num_threads(), tmp_path / "results.jsonl"

    def call(name, *args):
        importlib.import_module(name).main([*args, "--json", str(record)])
        return [json.loads(line) for line in record.read_text().splitlines()]

    yield call
    torch.set_num_threads(threads)
    names = (
        "train_step",
        "infer",
        "roofline",
        "loader",
        "index",
        "detectors",
        "measuring",
        "scenes",
        "cpu",
        "yolact",
        "growth",
    )
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_training_steps(bench, capsys):
    rows = bench("train_step", "--models", "mask_rcnn", "faster_rcnn", "cascade_mask_rcnn", *FEW)
    assert [(row["model"], set(row["seconds"])) for row in rows] == [
        ("mask_rcnn", {"ours", "torchvision"}),
        ("faster_rcnn", {"ours", "torchvision"}),
        ("cascade_mask_rcnn", {"ours"}),
    ]
    assert all({"date", "commit", "device", "torch", "torchvision", "threads"} <= row.keys() for row in rows)
    assert capsys.readouterr().out.count("x  ") >= 2


@pytest.mark.slow
def test_what_a_training_step_asks_of_a_gpu(bench, capsys):
    """At full size, as nothing is computed: without the dense gradient of the proposal network, and without reads."""
    (row,) = bench("roofline", "--models", "mask_rcnn", "--batch", "2")
    ours, peer = row["steps"]["ours"], row["steps"]["torchvision"]
    assert 1.26e12 < ours["flops_per_image"] < 1.27e12
    assert ours["host_reads"] == 0
    assert peer["host_reads"] > 20
    out = capsys.readouterr().out
    assert all(part in out for part in ("backbone", "rpn", "RoIAlign", "box_head", "mask_head", "optimiser"))


@pytest.mark.slow
def test_inference(bench):
    (row,) = bench("infer", "--models", "mask_rcnn", *FEW)
    assert set(row["seconds"]) == {"ours", "ours, network", "torchvision"}
    assert row["objects"] > 0


@pytest.mark.slow
def test_loading(bench, shapes):
    (row,) = bench("loader", "--data", str(shapes), "--images", "4", "--batch", "2", "--size", "64", "--workers", "0")
    assert row["images_per_second"].keys() == {"ours", "torchvision"}


@pytest.mark.slow
def test_opening(bench):
    first, later, ranks = bench("index", "--images", "300", "--objects", "3000", "--repeat", "1")
    assert [row["cpu_seconds"].keys() for row in (first, later)] == [{"ours", "pycocotools"}] * 2
    assert ranks["reads"] == 1


@pytest.mark.slow
def test_the_table_of_a_cpu(bench, capsys):
    """Two of its five kinds of rows, which take seconds at this size."""
    small = ["--rows", "inference", "processes", "--processes", "2", "--annotated", "100"]
    rows = {row["work"]: row for row in bench("cpu", *small, *FEW)}
    assert rows["Mask R-CNN, one image"]["seconds"].keys() == {"ours fp32", "ours bf16", "peer fp32", "peer bf16"}
    assert 170 < rows["processes"]["mebibytes"]["ours"] < 1000
    assert "processes before the first step" in capsys.readouterr().out


@pytest.mark.slow
def test_growth(bench, capsys, tmp_path):
    points = ["--points", "1", "3", "--size", "64", "96", "--threads", "1", "--picture", str(tmp_path / "growth.svg")]
    rows = bench("growth", "--along", "objects", *points)
    assert [(row["along"], row["value"]) for row in rows] == [("objects", 1), ("objects", 3)]
    assert all(row["seconds"].keys() == row["mebibytes"].keys() == {"ours", "torchvision"} for row in rows)
    assert capsys.readouterr().out.count("power") == 1
    assert (tmp_path / "growth.svg").read_text().count("<polyline") == 2


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["train_step", "--eager"], ["infer"]])
def test_a_machine_where_nothing_can_be_installed(arguments, tmp_path):
    """What would be run on one that is lent for minutes, without a GPU and small."""
    record = tmp_path / "results.jsonl"
    command = [str(BENCH / "bare.sh"), *arguments, "--models", "mask_rcnn", "yolact_base", *FEW, "--json", str(record)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        command, env=environment | {"PYTHON": sys.executable}, capture_output=True, text=True, check=False, timeout=900
    )
    assert run.returncode == 0, run.stderr
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    assert [row["model"] for row in rows] == ["mask_rcnn", "yolact_base"]
    assert {"ours", "torchvision"} <= rows[0]["seconds"].keys()
