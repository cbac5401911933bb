"""The program beside an exported file that shows how to run it."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["example"]

_TEMPLATE = '''\
"""Detect objects in a picture: python {name}.py picture.npy [least score]; it needs {needs} alone."""

import json
import sys
{imports}
picture = np.load(sys.argv[1])  # uint8 [height, width, 3], red, green, blue
least = float(sys.argv[2]) if len(sys.argv) > 2 else 0.5
{size}
{open}
y, x = [np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1) for n, m in zip(size, picture.shape)]
top, left = np.floor(y).astype(int), np.floor(x).astype(int)
down, right = np.minimum(top + 1, picture.shape[0] - 1), np.minimum(left + 1, picture.shape[1] - 1)
x, y = (x - left)[:, None], (y - top)[:, None, None]
rows = [picture[row][:, left] * (1 - x) + picture[row][:, right] * x for row in (top, down)]
pixels = rows[0] * (1 - y) + rows[1] * y{normalise}
images = np.zeros(({count}, 3, height, width), "{dtype}")
images[:, :, : size[0], : size[1]] = pixels.transpose(2, 0, 1){round}
feed = {{"images": images, "image_sizes": np.array([size] * len(images), "int32")}}
{run}
for box, score, label in zip(found["boxes"][0], found["scores"][0], found["labels"][0]):
    if score > least:
        corners = box / np.array([size[1] / picture.shape[1], size[0] / picture.shape[0]] * 2)
        print(card["categories"][label]["name"], round(float(score), 3), corners.round(1).tolist())
'''

_RUNTIMES = {
    "onnx": (
        "numpy and onnxruntime",
        "\nimport numpy as np\nimport onnxruntime\n",
        'session = onnxruntime.InferenceSession("{file}")\n'
        'card = json.loads(session.get_modelmeta().custom_metadata_map["det"])',
        'found = dict(zip(card["outputs"], session.run(list(card["outputs"]), feed)))',
    ),
    "openvino": (
        "numpy and openvino",
        "\nimport numpy as np\nimport openvino\n",
        'core = openvino.Core()\nmodel = core.read_model("{file}")\n'
        'card = json.loads(model.get_rt_info("det").astype(str))',
        'model = core.compile_model(model, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})\nfound = model(feed)',
    ),
    "pt2": (
        "numpy, torch and det-ops",
        "\nimport det_ops  # noqa: F401 - its operators are in the file\nimport numpy as np\nimport torch\n",
        'program = torch.export.load("{file}").module()\ncard = json.load(open("{card}"))',
        "found = {{k: v.numpy() for k, v in program(*map(torch.from_numpy, feed.values())).items()}}",
    ),
    "aoti": (
        "numpy, torch and det-ops",
        "\nimport det_ops  # noqa: F401 - its operators are in the file\nimport numpy as np\nimport torch\n",
        'program = torch._inductor.aoti_load_package("{file}")\ncard = json.load(open("{card}"))',
        "found = {{k: v.numpy() for k, v in program(*map(torch.from_numpy, feed.values())).items()}}",
    ),
    "executorch": (
        "numpy, torch and executorch",
        "\nimport numpy as np\nimport torch\nfrom executorch.runtime import Runtime\n",
        'program = Runtime.get().load_program("{file}")\ncard = json.loads(program.load_method("det").execute([])[0])',
        'outputs = program.load_method("forward").execute([torch.from_numpy(value) for value in feed.values()])\n'
        'found = {{name: value.numpy() for name, value in zip(card["outputs"], outputs)}}',
    ),
}


def example(card: Mapping[str, Any], name: str) -> str:
    """The program for a file, by its card.

    Args:
        card: See :func:`det_models.exporting.card.card_of`, with its `files`.
        name: The name of the card.
    """
    needs, imports, opening, run = _RUNTIMES[card["to"]]
    if len(card["files"]) > 1:
        opening = opening.replace('"{file}"', "files[height, width]")
    pixels, dtype = card["pixels"], card["inputs"]["images"]["dtype"]
    return _TEMPLATE.format(
        name=name.removesuffix(".json"),
        needs=needs,
        imports=imports,
        open=opening.format(file=card["files"][0][2], card=name),
        run=run.format(),
        size=_size(card["resize"], card["files"]),
        normalise=_normalise(pixels) if "mean" in pixels else "",
        count=1 if card["batch"] == "dynamic" else card["batch"],
        dtype=dtype,
        round=".round()" if dtype == "uint8" else "",
    )


def _size(resize: Mapping[str, Any], files: Sequence[Sequence[Any]]) -> str:
    """Lines that choose height and width of the network's input, and the size of the picture in it."""
    one = f"height, width = {files[0][0]}, {files[0][1]}\n"
    if "shortest" not in resize:
        return f"{one}size = [height, width]"
    usual = (
        f"scale = min({resize['shortest']} / min(picture.shape[:2]), {resize['longest']} / max(picture.shape[:2]))\n"
    )
    size = "size = [round(side * scale) for side in picture.shape[:2]]"
    if len(files) == 1:
        return f"{usual}{one}scale = min(scale, height / picture.shape[0], width / picture.shape[1])\n{size}"
    named = ", ".join(f'({height}, {width}): "{name}"' for height, width, name in files)
    return (
        f"files = {{{named}}}\n{usual}"
        "fits = {s: min(scale, s[0] / picture.shape[0], s[1] / picture.shape[1]) for s in files}\n"
        "height, width = max(files, key=lambda s: (fits[s], -s[0] * s[1]))  # the smallest that holds it\n"
        f"scale = fits[height, width]\n{size}"
    )


def _normalise(pixels: Mapping[str, Any]) -> str:
    turned = "[:, :, ::-1]" if pixels["order"] == "bgr" else ""
    return f"\npixels = (pixels{turned} / {pixels['scale']} - {pixels['mean']}) / {pixels['std']}"
