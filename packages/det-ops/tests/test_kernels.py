import os
import subprocess
import sys

import pytest

import det_ops
from det_ops import backends, live_rows
from det_ops.__main__ import main
from det_ops._table import table


def test_choice_is_restored_after_an_error() -> None:
    seen = [backends.serving.get("cpu")]

    def fail() -> None:
        with det_ops.kernels("reference"):
            seen.append(backends.serving.get("cpu"))
            with det_ops.kernels("auto"):
                seen.append(backends.serving.get("cpu"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen[1:] == [None, backends.BACKENDS["cpu"]]
    assert backends.serving.get("cpu") == seen[0]


def test_unknown_choice() -> None:
    with (
        pytest.raises(ValueError, match="choice must be one of auto, reference, host, vendor, triton, got 'fast'"),
        det_ops.kernels("fast"),
    ):
        pass


def test_every_operator_has_a_row_per_device() -> None:
    rows = table()
    operators = {row.function for row in rows}
    assert {(row.function, row.device) for row in rows} == {(o, d) for o in operators for d in ("cpu", "cuda", "npu")}
    functions = {name for name in det_ops.__all__ if name[0].islower()} - {"kernels"} | set(live_rows.__all__)
    assert operators == functions


def test_environment_forces_the_reference_and_the_table_says_so() -> None:
    environment = os.environ | {"DET_OPS_KERNELS": "reference"}
    run = [sys.executable, "-m", "det_ops"]
    lines = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line for line in lines if line.startswith("  ") and line[2] != " "]
    assert len(rows) == len(table())
    assert all("reference" in row and "forced" in row for row in rows)


def test_npu_rows_tell_what_the_vendor_has(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    printed = capsys.readouterr().out
    of_npu = printed[printed.index("\nnpu: ") :].splitlines()
    (place,) = (i for i, line in enumerate(of_npu) if line.startswith("  nms "))
    assert of_npu[place].split()[1:3] == ["reference", "exact;"]
    assert [line.split()[:2] for line in of_npu[place + 1 : place + 3]] == [
        ["or", "DET_OPS_KERNELS=host:"],
        ["or", "DET_OPS_KERNELS=vendor:"],
    ]
    (place,) = (i for i, line in enumerate(of_npu) if line.startswith("  match "))
    assert of_npu[place + 1].split()[:2] == ["not", "npu_grid_assign_positive"]
    assert any(line.split()[:3] == ["roi_align", "torch_npu", "npu_roi_align,"] for line in of_npu)


@pytest.mark.parametrize(("choice", "kernel"), [("auto", "reference"), ("host", "C++"), ("vendor", "vendor")])
def test_nms_on_an_npu_may_be_chosen(choice: str, kernel: str) -> None:
    with det_ops.kernels(choice):
        served = {(row.function, row.device): row.kernel for row in table()}
    assert served["nms", "npu"] == served["batched_nms", "npu"] == kernel
    # All else is as it was.
    others = {(row.function, row.device): row.kernel for row in table() if "nms" not in row.function}
    assert {key: served[key] for key in others} == others
    assert served["nms", "cpu"] == "C++"


def test_public_names_are_sorted() -> None:
    assert det_ops.__all__ == sorted(det_ops.__all__)
