"""Trained detectors by name: the table, its names, and their files, from a server on this machine."""

import http.server
import re
import threading
from collections import Counter

import pytest

from det_backbones import WeightsError, cache_directory
from det_models import find_published, load, published_detectors
from det_models.published import search
from testing.trained import write_trained

DETECTORS = published_detectors()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "fvcore"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder whose files a server gives out, the first time only their first half, as where a connection is cut."""
    folder, started = tmp_path / "mirror", set()
    folder.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            data = (folder / self.path[1:]).read_bytes()
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            self.send_response(206 if start else 200)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start:] if self.path in started else data[: len(data) // 2])
            started.add(self.path)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("DET_WEIGHTS_MIRROR", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield folder
        server.shutdown()


def test_the_table():
    systems = Counter(detector.system for detector in DETECTORS.values())
    assert systems == {"detectron2": 23, "mmdet": 81, "torchvision": 9, "maskrcnn-benchmark": 6, "yolact": 6}
    assert len({detector.file for detector in DETECTORS.values()}) == len(DETECTORS)  # they share a folder
    for detector in DETECTORS.values():
        figures = [f for f in (detector.box_ap, detector.mask_ap, detector.keypoint_ap) if f is not None]
        assert figures, detector
        assert all(20 < figure < 70 for figure in figures)
        assert detector.url.startswith("https://")
        assert detector.url.endswith(f"/{detector.file}")


def test_sums_are_those_in_the_names_of_files():
    for detector in DETECTORS.values():
        kind, digits = {"detectron2": ("md5", 6), "mmdet": ("sha256", 8), "torchvision": ("sha256", 8)}.get(
            detector.system, (None, 0)
        )
        assert [name for name in ("sha256", "md5") if getattr(detector, name)] == ([kind] if kind else [])
        if kind is not None:
            assert re.fullmatch(rf"[0-9a-f]{{{digits}}}", getattr(detector, kind))
            assert getattr(detector, kind) in detector.file


def test_torchvision_agrees():
    models = pytest.importorskip("torchvision.models")
    published = {}
    for name in models.list_models(module=models.detection):
        for weights in models.get_model_weights(name):
            metrics = next(iter(weights.meta["_metrics"].values()))
            published[weights.url] = tuple(metrics.get(key) for key in ("box_map", "mask_map", "kp_map"))
    for detector in DETECTORS.values():
        if detector.system == "torchvision":
            assert published[detector.url] == (detector.box_ap, detector.mask_ap, detector.keypoint_ap)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("detectron2/mask_rcnn_R_50_FPN_3x", "detectron2/mask_rcnn_R_50_FPN_3x"),
        ("detectron2/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml", "detectron2/mask_rcnn_R_50_FPN_3x"),
        ("mmdet/mask_rcnn_r50_fpn_1x_coco", "mmdet/mask-rcnn_r50_fpn_1x_coco"),
        ("mmdet/configs/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", "mmdet/mask-rcnn_r50_fpn_1x_coco"),
        ("torchvision/keypointrcnn_resnet50_fpn", "torchvision/keypointrcnn_resnet50_fpn"),
        ("maskrcnn-benchmark/e2e_mask_rcnn_R_50_FPN_1x", "maskrcnn-benchmark/e2e_mask_rcnn_R_50_FPN_1x"),
        ("yolact/yolact_base_config", "yolact/yolact_base"),
    ],
)
def test_names_are_spelt_as_their_systems_do(spelling, name):
    assert find_published(spelling) is DETECTORS[name]


def test_what_is_no_name_is_a_path(tmp_path):
    assert find_published("runs/mask_rcnn/best.pt") is None
    assert find_published("yolact") is None
    (tmp_path / "yolact").mkdir()
    (tmp_path / "yolact" / "yolact_base").touch()
    assert find_published("yolact/yolact_base") is None
    with pytest.raises(WeightsError, match="Did you mean torchvision/maskrcnn_resnet50_fpn"):
        find_published("torchvision/maskrcnn_resnet50")


def test_search():
    assert [d.name for d in search(["R50", "fpn_3x", "detectron2"])] == []
    assert next(iter(search(["mask_rcnn_r_50", "3x", "Detectron2"]))).name == "detectron2/mask_rcnn_R_50_FPN_3x"
    assert len(search([])) == len(DETECTORS)


def test_a_detector_is_downloaded_when_it_is_used(mirror):
    """In two goes, since the connection is cut; on the images that its name stands for."""
    detector = DETECTORS["yolact/yolact_im700"]
    write_trained(mirror / detector.file, "yolact")
    found = load("yolact/yolact_im700")
    assert found.config.detector.num_classes == 3
    assert (cache_directory() / detector.file).read_bytes() == (mirror / detector.file).read_bytes()
    assert found.config.buckets == ((700, 700),)
    assert found.config.detector.priors.sizes[0] == (30.0,)  # 24 at 550 pixels


def test_a_flipped_byte_is_noticed(mirror):
    detector = DETECTORS["yolact/yolact_base"]
    write_trained(mirror / detector.file, "yolact")
    load("yolact/yolact_base")
    place = cache_directory() / detector.file
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(content)
    with pytest.raises(WeightsError, match=r"is damaged: it has the SHA-256 sum \w+, expected \w+"):
        load("yolact/yolact_base")


@pytest.mark.parametrize("name", ["torchvision/maskrcnn_resnet50_fpn", "detectron2/mask_rcnn_R_50_FPN_3x"])
def test_another_file_than_the_published_one_is_not_kept(name, mirror):
    detector = DETECTORS[name]
    write_trained(mirror / detector.file, "torchvision")
    with pytest.raises(WeightsError, match=rf"sum \w+, expected {detector.sha256 or detector.md5}; it was not kept"):
        load(name)
    assert list(cache_directory().iterdir()) == []


def test_without_network_one_message_says_what_to_do(monkeypatch):
    monkeypatch.setenv("DET_WEIGHTS_MIRROR", "http://127.0.0.1:1")
    with pytest.raises(WeightsError) as caught:
        load("mmdet/mask-rcnn_r50_fpn_1x_coco")
    detector, message = DETECTORS["mmdet/mask-rcnn_r50_fpn_1x_coco"], str(caught.value)
    assert f"Download {detector.url} and put the file at {cache_directory() / detector.file}" in message
    assert "\n" not in message
