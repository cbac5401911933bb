#!/bin/sh
# openvino 2026.4.1, onnxruntime 1.32.0, onnx 1.23.2
#
# OpenVINO gives another result than ONNX Runtime for graphs of ONNX whose result is defined: of equal elements its TopK does not
# return those with the lower index first, as ONNX says it must; and 0 / 0 is greater than 0.5, where IEEE 754 compares NaN with
# nothing. So non-maximum suppression drops boxes without extent for good ones beside them, and orders equal scores at will.
#
# Why a good guess is wrong: OpenVINO's own TopK has an attribute "stable" that does what ONNX asks for; its reader of ONNX leaves
# it off. And a comparison with NaN is what every processor gets right; the kernels compare by "not less or equal".
#
# Who meets it: everybody who exports a detector with its post-processing and takes agreement on a few pictures for equality.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper

PATH = f"{sys.argv[1]}/model.onnx"


def run(nodes, feed, outputs):
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape) for name, value in feed.items()]
    constants = [helper.make_tensor("k", TensorProto.INT64, [1], [200]), helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])]
    results = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    graph = helper.make_graph(nodes, "graph", inputs, results, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), PATH)
    session = onnxruntime.InferenceSession(PATH, providers=["CPUExecutionProvider"])
    model = openvino.compile_model(PATH, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (name,) = outputs
    return session.run([name], feed)[0], np.array(model(feed)[name])


scores = np.random.default_rng(0).integers(0, 5, 200).astype(np.float32)
topk = [helper.make_node("TopK", ["x", "k"], ["values", "order"], axis=0)]
expected = np.argsort(-scores, kind="stable")
theirs, found = run(topk, {"x": scores}, {"order": TensorProto.INT64})
same = [np.array_equal(order, expected) for order in (theirs, found)]
print(f"TopK returns the lower index first among equals: ONNX Runtime {same[0]}, OpenVINO {same[1]}")

zero = np.zeros(200, np.float32)
divide = [helper.make_node("Div", ["a", "b"], ["ratio"]), helper.make_node("Greater", ["ratio", "half"], ["above"])]
theirs, found = run(divide, {"a": zero, "b": zero}, {"above": TensorProto.BOOL})
above = [bool(values.any()) for values in (theirs, found)]
print(f"0 / 0 > 0.5: ONNX Runtime {above[0]}, OpenVINO {above[1]}")
sys.exit(not (same == [True, False] and above == [False, True]))
PYTHON
