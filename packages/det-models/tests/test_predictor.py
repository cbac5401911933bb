"""Three lines of Python: `load`, `predict`, and what is found."""

import copy
import io
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from det_coco import DataError
from det_models import Detections, OptionError, Predictor, build, load, open_weights
from testing.trained import NAMES, SYSTEMS, random_network, small_model, write_trained

FAMILIES = {
    "mask_rcnn": ("ours", {}),
    "faster_rcnn": ("ours", {"mask": False}),
    "cascade_rcnn": ("ours", {"cascade": True}),
    "keypoint_rcnn": ("ours", {"keypoints": True}),
    "legacy": ("maskrcnn-benchmark", {}),
    "yolact": ("yolact", {}),
    "yolact++": ("yolact++", {}),
}


def picture(height: int = 48, width: int = 72, seed: int = 0) -> np.ndarray:
    """A smooth random picture, uint8 [H, W, 3]."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height)))


def predictor(family: str = "mask_rcnn", **options: object) -> Predictor:
    system, kind = FAMILIES[family]
    model = small_model(system, **kind)
    return Predictor(random_network(model), model, NAMES, device="cpu", **options)


def assert_same(one: Detections, other: Detections) -> None:
    assert len(one) == len(other) > 0
    for name in ("boxes", "scores", "labels", "category_ids"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.rle == other.rle


def assert_alike(one: Detections, other: Detections) -> None:
    """As found in another batch, whose products are rounded otherwise."""
    assert len(one) == len(other)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.01)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    np.testing.assert_array_equal(one.labels, other.labels)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_found(family: str) -> None:
    detector = predictor(family)
    found = detector.predict(picture())
    count = len(found)
    assert count > 3
    assert (found.boxes.dtype, found.boxes.shape) == (np.float32, (count, 4))
    assert (found.boxes[:, 2:] <= [72, 48]).all()
    assert (found.scores.dtype, found.scores.shape) == (np.float32, (count,))
    assert (np.diff(found.scores) <= 0).all()
    assert found.names.tolist() == [NAMES[label + 1] for label in found.labels]
    assert found.size == (48, 72)
    if family == "keypoint_rcnn":
        assert (found.keypoints.dtype, found.keypoints.shape) == (np.float32, (count, 17, 3))
        assert found[:2].extra["keypoint_scores"].shape == (2, 17)
        assert len(found.to_coco(1)[0]["keypoints"]) == 51
    if family in ("faster_rcnn", "keypoint_rcnn"):
        assert found.masks is None
        assert found.rle is None
    else:
        assert (found.masks.dtype, found.masks.shape) == (np.bool_, (count, 48, 72))
        assert [rle["size"] for rle in found.rle] == [[48, 72]] * count
    assert (found.mask_scores is not None) == (family == "yolact++")
    rows = found.to_coco(image_id=7)
    assert {row["image_id"] for row in rows} == {7}
    assert [row["category_id"] for row in rows] == found.category_ids.tolist()
    assert rows[0]["bbox"][2:] == pytest.approx((found.boxes[0, 2:] - found.boxes[0, :2]).tolist())
    assert found.draw(min_score=0.3).size == (504, 336)
    assert found._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_in_which_nothing_is_found(family: str) -> None:
    nothing = predictor(family).predict(picture(), min_score=1, features=True)
    assert len(nothing) == 0
    assert nothing.to_coco(1) == []
    assert nothing.draw().size == (504, 336)
    assert nothing.features.regions.shape[0] == 0
    assert repr(nothing) == "0 detections in an image of 72 x 48 pixels"
    assert len(pickle.loads(pickle.dumps(nothing))) == 0


def test_some_of_the_detections() -> None:
    found = predictor().predict(picture())
    best = found[0]
    assert len(best) == 1
    assert best.scores[0] == found.scores[0]
    assert len(found[found.scores > found.scores[2]]) == 2
    assert [len(one) for one in found] == [1] * len(found)
    none = found[:0]
    assert not none
    assert none.masks.shape == (0, 48, 72)
    assert none.names.shape == (0,)
    assert none.to_coco(1) == []
    none.draw()
    assert repr(none) == "0 detections in an image of 72 x 48 pixels"
    assert repr(found[:1]).startswith("1 detection in an image of 72 x 48 pixels (1 ")


def test_drawing_on_another_image(tmp_path: Path) -> None:
    """On what a detector takes too, of the same size; and only what there is to draw."""
    found, pixels = predictor().predict(picture()), picture(seed=1)
    path = tmp_path / "other.png"
    Image.fromarray(pixels).save(path)
    drawn = np.asarray(found.draw(pixels))
    for image in (path, Image.open(path), torch.from_numpy(pixels.copy()).permute(2, 0, 1)):
        np.testing.assert_array_equal(np.asarray(found.draw(image)), drawn)
    with pytest.raises(OptionError, match="of an image of 72 x 48 pixels, the one to draw on has 48 x 72"):
        found.draw(picture(72, 48))
    np.testing.assert_array_equal(np.asarray(found.draw(show="masks")), np.asarray(found.draw(show=["masks"])))
    with pytest.raises(OptionError, match="show must name some of masks, boxes, scores, got 'mask'"):
        found.draw(show=["mask"])


def test_every_kind_of_image(tmp_path: Path) -> None:
    detector, pixels = predictor(), picture()
    path = tmp_path / "street.png"
    Image.fromarray(pixels).save(path)
    found = detector.predict(path)
    assert found.source == str(path)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    mirrored = pixels[:, ::-1]  # strides that torch does not take
    for image in (str(path), Image.open(path), pixels, tensor):
        assert_same(detector.predict(image), found)
    detector.predict(mirrored)


def test_an_opened_picture_is_named_by_its_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(path)
    predictor().predict(Image.open(path))
    assert str(tmp_path) in caplog.text


def test_a_picture_that_lies_on_its_side() -> None:
    """EXIF's orientation holds for an opened picture as for its file."""
    upright = picture()
    image = Image.fromarray(np.rot90(upright))
    image.getexif()[0x0112] = 6  # turned by a quarter, clockwise to stand
    assert_same(predictor().predict(image), predictor().predict(upright))


def test_several_images_in_batches_and_lazily(tmp_path: Path) -> None:
    """Landscape and portrait do not share a padded shape, and come in the order that they were given in."""
    detector = predictor(batch_size=2)
    images = [picture(seed=seed) for seed in range(3)] + [picture(72, 48), picture(seed=4)]
    alone = [detector.predict(image) for image in images]
    found = detector.predict(images)
    assert isinstance(found, list)
    for one, other in zip(found, alone, strict=True):
        assert_alike(one, other)
    read = []

    def frames():
        for number in range(1000):
            read.append(number)
            yield images[number % 5]

    stream = detector.predict(frames())
    assert read == []
    assert_alike(next(stream), alone[0])
    stream.close()
    assert len(read) < 50
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    folder = detector.predict(tmp_path)
    assert iter(folder) is folder
    assert [Path(one.source).name for one in folder] == [f"{number}.png" for number in range(5)]


def test_a_caller_may_fill_one_array_again_and_again() -> None:
    """As video libraries do; images are read ahead."""
    detector = predictor()
    images = [picture(64, 96, seed=seed) for seed in range(4)]
    frame = np.empty_like(images[0])

    def frames():
        for image in images:
            frame[:] = image
            yield frame

    for found, image in zip(detector.predict(frames(), batch_size=2), images, strict=True):
        np.testing.assert_array_equal(found.image, image)
        assert_alike(found, detector.predict(image))


def test_what_comes_before_a_broken_picture_is_found(tmp_path: Path) -> None:
    for number in range(2):
        Image.fromarray(picture(seed=number)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    stream = predictor().predict(tmp_path, batch_size=4)
    assert [Path(next(stream).source).name for _ in range(2)] == ["0.png", "1.png"]
    with pytest.raises(DataError, match=r"2\.png"):
        next(stream)


def test_hooks_of_the_network_see_every_batch() -> None:
    """By which a training knows that its evaluation works."""
    model = small_model("ours")
    network = random_network(model)
    seen: list[None] = []
    network.register_forward_pre_hook(lambda *_: seen.append(None))
    detector = Predictor(network, model, NAMES, device="cpu")
    for _ in range(2):
        detector.predict(picture())
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((8, 8, 3)), r"uint8 \[H, W, 3\], got float64 \[8, 8, 3\]"),
        (np.zeros((2, 8, 8, 3), dtype=np.uint8), "Give several images as a list"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"uint8 \[3, H, W\], got uint8 \[8, 8, 3\]"),
        (np.zeros((8, 8), dtype=np.uint8), "Image.fromarray"),
        (np.zeros((0, 8, 3), dtype=np.uint8), "must have pixels, got one of height 0 and width 8"),
        (torch.zeros(3, 8, 0, dtype=torch.uint8), "must have pixels, got one of height 8 and width 0"),
        (Image.new("RGB", (0, 8)), "must have pixels"),
        (7, "got int"),
        ("", "must have a path, got an empty text"),
        (b"content of a file", "got bytes"),
        ({"street": "street.jpg"}, "got dict"),
        (io.BytesIO(b"content of a file"), "got BytesIO"),
    ],
)
def test_what_is_no_image(image: object, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        predictor().predict(image)
    with pytest.raises(OptionError, match="min_score must be between 0 and 1, got 50"):
        predictor().predict(picture(), min_score=50)


@pytest.mark.parametrize("family", FAMILIES)
def test_copies_and_pickles(family: str) -> None:
    detector = predictor(family)
    found = detector.predict(picture())
    for other in (copy.copy(detector), copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
        assert_same(other.predict(picture()), found)
        assert repr(other) == repr(detector)
    again = pickle.loads(pickle.dumps(found))
    assert_same(again, found)


def test_threads_share_a_detector() -> None:
    detector = predictor()
    images = [picture(48 + 8 * n, 72, seed=n) for n in range(4)]
    alone = [detector.predict(image) for image in images]
    found: list[Detections | None] = [None] * 12

    def work(number: int) -> None:
        found[number] = detector.predict(images[number % 4])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, one in enumerate(found):
        assert_same(one, alone[number % 4])


def test_nothing_of_the_process_changes() -> None:
    """Not the recording of gradients, nor the numbers of threads, nor the random numbers, nor autocast."""

    def state() -> tuple[object, ...]:
        return (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_num_threads(),
            torch.get_rng_state().tolist(),
            torch.backends.mkldnn.enabled,
            torch.get_default_dtype(),
        )

    detector = predictor()
    before = state()
    found = detector.predict(picture())
    list(detector.predict(iter([picture(), picture()])))
    assert state() == before
    with torch.no_grad():
        assert_same(detector.predict(picture()), found)
    with torch.inference_mode():
        assert_same(detector.predict(picture()), found)


def test_the_callers_default_device_and_type_do_not_matter(tmp_path: Path) -> None:
    path = write_trained(tmp_path / "best.pt")
    found = load(path, device="cpu").predict(picture(), features=True)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):  # as torch.set_default_device, which lasts
            detector = load(path, device="cpu")
            for one in (detector.predict(picture(), features=True), *detector.predict([picture()])):
                assert_same(one, found)
    finally:
        torch.set_default_dtype(torch.float32)


def test_bf16_finds_nearly_the_same() -> None:
    found, other = predictor().predict(picture()), predictor(precision="bf16").predict(picture())
    assert abs(found.scores[0] - other.scores[0]) < 0.1
    with pytest.raises(OptionError, match="precision must be one of fp32, bf16, fp16, got 'fp8'"):
        predictor(precision="fp8")


@pytest.mark.parametrize("system", SYSTEMS)
def test_files_of_five_systems(system: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector = load(write_trained(tmp_path / "detector.any", system), device="cpu", size=64)
    assert len(detector.predict(picture())) > 0
    assert f"from {tmp_path / 'detector.any'}: 3 classes" in repr(detector)
    named = system in ("ours", "detectron2", "mmdetection")
    assert list(detector.categories.values()) == (list(NAMES.values()) if named else ["1", "2", "3"])
    assert capsys.readouterr().out == ""


def test_what_wraps_the_weights_is_named_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_trained(tmp_path / "a.pth", "torchvision")
    state = torch.load(path, weights_only=True)
    torch.save({"state_dict": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}}, path)
    detector = load(path, device="cpu", size=64)
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert str(path) in said
    assert "_orig_mod." in said
    assert len(detector.predict(picture())) > 0


def test_limits_and_classes(tmp_path: Path) -> None:
    path = write_trained(tmp_path / "best.pt")
    everything = load(path, device="cpu").predict(picture())
    few = load(path, device="cpu", max_detections=3).predict(picture())
    assert 2 <= len(few) <= 3  # a box without area takes a place, and is dropped later
    np.testing.assert_array_equal(few.scores, everything.scores[: len(few)])
    of_one = everything[everything.names == "square"]
    for classes in (["square"], [2], "square", ["2"]):
        found = load(path, device="cpu", classes=classes).predict(picture())
        assert_same(found, of_one)
        assert found.categories == {2: "square"}
    some = load(path, device="cpu", classes=["square"], max_detections=2).predict(picture())
    np.testing.assert_array_equal(some.scores, of_one.scores[:2])
    assert len(load(path, device="cpu", nms_iou=0.1).predict(picture())) < len(everything)
    above = load(path, device="cpu").predict(picture(), min_score=float(everything.scores[4]))
    assert len(above) == 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"classes": ["sqare"]}, "knows no class 'sqare'. Did you mean 'square'\\? It knows disc, square, triangle"),
        ({"classes": [9]}, "knows no class 9"),
        ({"classes": []}, "at least one class"),
        ({"max_detections": 0}, "max_detections must be at least 1, got 0"),
        ({"max_detections": 1.5}, "max_detections must be a whole number, got 1.5"),
        ({"max_detections": 10**9}, "which this network can give, got 1000000000"),
        ({"nms_iou": 1.5}, "nms_iou must be above 0 and at most 1, got 1.5"),
        ({"size": (96, 64)}, "the shorter side first"),
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"size": "64"}, "size must be a whole number, got '64'"),
        ({"size": (64, 96, 96)}, "size must be one length or two"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 1.5}, "batch_size must be a whole number, got 1.5"),
        ({"device": "gpu"}, "device 'gpu' cannot be used: .* Give auto, cpu, cuda or npu"),
        ({"device": "meta"}, "device 'meta' cannot be used: "),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], says: str, tmp_path: Path) -> None:
    path = write_trained(tmp_path / "best.pt")
    with pytest.raises(OptionError, match=says):
        load(path, **{"device": "cpu", **options})


def test_sizes(tmp_path: Path) -> None:
    ours = open_weights(write_trained(tmp_path / "best.pt"))
    detector = ours.predictor(device="cpu", size=128)
    assert (detector.config.resize.shortest, detector.config.resize.longest) == ((128,), 192)
    assert ours.predictor(device="cpu", size=np.int64(128)).config == detector.config
    assert ours.predictor(device="cpu", size=(128,)).config == detector.config
    detector = ours.predictor(device="cpu", size=(128, 160))
    assert detector.config.buckets == ((128, 160), (160, 128))
    yolact = open_weights(write_trained(tmp_path / "yolact.pth", "yolact"))
    assert yolact.network().resize.shortest == (550,)
    # No file tells the size that it was trained at, so that this is taken for it: priors have it as their measure.
    detector = yolact.predictor(device="cpu", size=400)
    assert detector.config.detector.priors.sizes[0] == (17.0,)
    with pytest.raises(OptionError, match="one length for YOLACT"):
        yolact.predictor(device="cpu", size=(400, 600))
    plus = open_weights(write_trained(tmp_path / "plus.pth", "yolact++"))
    with pytest.raises(OptionError, match="size must be at least 249 for YOLACT"):
        plus.predictor(device="cpu", size=248)
    assert len(plus.predictor(device="cpu", size=249).predict(picture())) > 0


def test_a_detector_in_training_stays_as_it_is() -> None:
    model = small_model()
    network = build(model).train()
    before = copy.deepcopy(network.state_dict())
    detector = Predictor(network, model, NAMES, device="cpu")
    detector.predict(picture())
    assert network.training
    assert all(parameter.requires_grad for parameter in network.rpn.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_labels_without_category_are_never_reported() -> None:
    model = small_model()
    names = {1: None, 2: "square", 3: "triangle"}
    everything = predictor().predict(picture())
    found = Predictor(random_network(model), model, names, device="cpu").predict(picture())
    assert 0 < len(found) < len(everything)
    np.testing.assert_array_equal(found.scores, everything.scores[everything.labels != 0])
    assert set(found.names.tolist()) <= {"square", "triangle"}


@pytest.mark.parametrize("family", ["mask_rcnn", "yolact"])
def test_features(family: str) -> None:
    """Those of the pyramid end with the image, and those of a detection are what lies under its box."""
    detector = predictor(family)
    found = detector.predict(picture(), features=True)
    assert_same(found, detector.predict(picture()))
    features = found.features
    levels = [(-(-64 // stride), -(-96 // stride)) for stride in (4, 8, 16, 32, 64)]
    if family == "yolact":
        levels = [(-(-64 // stride), -(-64 // stride)) for stride in (8, 16, 32, 64, 128)]
    assert [level.shape for level in features.pyramid] == [(16, *level) for level in levels]
    assert features.regions.shape == (len(found), 16, 7, 7)
    assert features.scale == pytest.approx((64 / 48, 64 / 48) if family == "mask_rcnn" else (64 / 48, 64 / 72))
    few = found[:2]
    np.testing.assert_array_equal(few.features.regions, features.regions[:2])
    small = np.flatnonzero((found.boxes[:, 2:] - found.boxes[:, :2]).max(1) < 40)
    x1, y1, x2, y2 = (found.boxes[small[0]] * np.tile(features.scale[::-1], 2) / features.strides[0]).astype(int)
    below = features.pyramid[0][:, max(y1 - 1, 0) : y2 + 2, max(x1 - 1, 0) : x2 + 2]
    region = features.regions[small[0]]
    assert (region.min((1, 2)) >= below.min((1, 2)) - 1e-5).all()
    assert (region.max((1, 2)) <= below.max((1, 2)) + 1e-5).all()
