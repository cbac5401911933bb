"""Pages of reports and comparisons: what they show, in a real browser, and the commands that write them."""

import json
import re

import numpy as np
import pytest

from det_coco import Detections, load_split, save_results
from det_coco.__main__ import main
from det_coco.mask_codec import instance_bitmap
from det_coco.report import analyse
from det_coco.report.gallery import galleries
from testing.browser import browsing, column
from testing.evaluation_cases import coco_mask


def detections_near(index, seed):
    """Results that find most objects, some badly or as another class, and some things that are not there."""
    random = np.random.RandomState(seed)
    rows = []
    for position, image in enumerate(index.image_ids.tolist()):
        height, width = index.image_size(image)
        for n in range(index.instances(position).start, index.instances(position).stop):
            bitmap = np.roll(instance_bitmap(index, n, height, width), random.randint(-2, 3, 2), (0, 1))
            code = coco_mask.encode(np.asfortranarray(bitmap))
            label = int(index.labels[n]) if random.random_sample() < 0.8 else random.randint(index.num_classes)
            rows.append(
                {"image_id": image, "category_id": index.category_ids[label], "bbox": coco_mask.toBbox(code).tolist(),
                 "score": round(float(random.uniform(0.3, 1)), 3),
                 "segmentation": {"size": code["size"], "counts": code["counts"].decode()}}
            )  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def files(dataset, tmp_path_factory):
    """Two results files for the training split of the synthetic data."""
    folder = tmp_path_factory.mktemp("results")
    index = load_split(dataset, "train")
    for number, name in enumerate(("first", "second")):
        save_results(detections_near(index, number), folder / f"{name}.json")
    return folder


@pytest.fixture(scope="module")
def page(files, dataset):
    """The report of one of them, and its numbers beside it."""
    arguments = ["--data", dataset, "--split", "train", "--json", files / "first.numbers", "--pictures", 4]
    file = files / "report.html"
    assert main(["report", str(files / "first.json"), "--output", str(file), *map(str, arguments)]) == 0
    return file


def test_galleries(dataset, files):
    index = load_split(dataset, "train")
    detections = Detections.from_rows(index, json.loads((files / "first.json").read_text()))
    report = analyse(index, detections, ["segm"], wished_precision=0.5, samples=2)["segm"]
    became = report.outcomes
    shown = {title: examples for title, (_, examples) in galleries(index, detections, report, 6).items()}
    assert all(3 <= len(examples) <= 6 for examples in shown.values())
    rows = {row: n for n, row in enumerate(became.matches.detections.tolist())}
    mistakes, doubtful = (
        [rows[int(example.detections[0][0])] for example in shown[title]]
        for title in ("Most confident mistakes", "Likely label errors")
    )
    assert became.wrong[mistakes].all()
    assert became.wrong[doubtful].all()
    assert not set(mistakes) & set(doubtful)
    assert {int(became.kinds[row]) for row in doubtful} <= {1, 5}
    scores = became.matches.scores[doubtful]
    assert scores.tolist() == sorted(scores, reverse=True)
    assert scores[-1] >= report.precise.score
    ids = {int(n) for n in index.annotation_ids[became.matches.truth[~became.found(report.min_score)]]}
    assert {example.annotations[0] for example in shown["Missed objects"]} <= ids
    for examples in shown.values():
        for example in examples:
            x1, y1, x2, y2 = example.region or (0, 0, 1, 1)
            assert 0 <= x1 < x2 <= index.widths[example.position]
            assert 0 <= y1 < y2 <= index.heights[example.position]


def test_a_report_in_a_browser(page):
    with browsing(page) as shown:
        headings = shown.locator("h2").all_inner_texts()
        assert headings == [
            "Mistakes and what they cost", "Classes", "Sizes, crowding, border", "Scores and thresholds", "Confusion",
            "Worst images", "Most confident mistakes", "Missed objects", "Likely label errors",
        ]  # fmt: skip
        tables = shown.locator("#classes table")
        assert tables.count() == 2
        names = tables.first.locator("tbody tr td:first-child")
        before = names.all_inner_texts()
        tables.first.get_by_role("button", name="AP50").click()
        values = [float(v) for v in tables.first.locator("tbody tr td:nth-child(3)").all_inner_texts()]
        assert values == sorted(values, reverse=True)
        assert names.all_inner_texts() != before
        assert sorted(names.all_inner_texts()) == sorted(before)
        assert shown.locator("figure.plot svg").count() == 6
        for picture in shown.locator("img").all():
            picture.scroll_into_view_if_needed()
            assert picture.evaluate("async e => (await e.decode(), e.naturalWidth)") > 100
        link = shown.locator("#worst-images figcaption a").first
        assert re.search(r"/train/\d+\.jpg$", link.get_attribute("href"))


@pytest.mark.parametrize("dark", [False, True])
def test_a_report_on_a_phone(page, dark):
    with browsing(page, width=400, dark=dark) as shown:
        assert shown.evaluate("document.documentElement.scrollWidth") == 400


def test_numbers_of_a_report(page, files):
    numbers = json.loads((files / "first.numbers").read_text())
    assert set(numbers) == {"bbox", "segm"}
    with browsing(page) as shown:
        assert float(column(shown, 0, 1)[0]) == pytest.approx(numbers["bbox"]["metrics"]["AP"], abs=5e-4)
    assert len(numbers["segm"]["classes"]) == 6
    assert sum(map(sum, numbers["segm"]["confusion"]["matrix"])) > 0


def test_comparison(files, dataset, capsys):
    arguments = ["--data", dataset, "--split", "train", "--html", files / "compared.html", "--pictures", 3]
    arguments += ["--json", files / "compared.numbers"]
    results = [str(files / f"{name}.json") for name in ("first", "second")]
    assert main(["compare", *results, *map(str, arguments)]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines()[:6])) <= 80
    numbers = json.loads((files / "compared.numbers").read_text())["segm"]
    values = numbers["differences"][results[1]]
    interval = values["intervals"]["AP"]
    assert f"{interval['value']:+.3f} ({interval['low']:+.3f} to {interval['high']:+.3f})" in out
    assert f"finds {len(values['gained'])} objects that the first misses, and misses {len(values['lost'])}" in out
    with browsing(files / "compared.html") as shown:
        assert shown.locator("h2").count() == 5
        assert shown.locator("img").count() == min(len(values["gained"]), 3) + min(len(values["lost"]), 3)


def test_pictures_may_be_missing(files, dataset, tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val.json").write_bytes(
        (dataset / "annotations" / "instances_train.json").read_bytes()
    )
    page = tmp_path / "report.html"
    arguments = ["--data", str(tmp_path), "--split", "val", "--output", str(page), "--pictures", "1"]
    assert main(["report", str(files / "first.json"), *arguments]) == 0
    assert "does not exist" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "none.json"], "The results file none.json cannot be read: No such file"),
        (["report", "results.json", "--pictures", "-1"], "--pictures must be 0 or more, got -1."),
        (
            ["report", "broken.json", "--json", "broken.json/x"],
            "broken.json/x cannot be written: File exists (broken.json).",
        ),
        (["report", "broken.json", "--output", "."], ". cannot be written: Is a directory."),
        (["report", "broken.json"], "broken.json is not valid JSON: it ends too early"),
        (["report", "wrong.json"], "wrong.json: 'score' of result 0 must be a finite number"),
        (["report", "empty.json", "--precision", "90"], "--precision must be above 0 and up to 1, got 90."),
        (["compare", "empty.json"], "compare needs two or more different results files."),
    ],
)
def test_what_is_wrong_is_named(dataset, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("[{")
    (tmp_path / "empty.json").write_text("[]")
    image = int(load_split(dataset, "val").image_ids[0])
    row = {"image_id": image, "category_id": 1, "bbox": [0, 0, 1, 1], "score": "high"}
    (tmp_path / "wrong.json").write_text(json.dumps([row]))
    assert main([*arguments, "--data", str(dataset)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
