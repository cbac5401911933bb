"""The server: what it answers, and what it does under load, in a process as users start it and in a browser."""

import asyncio
import http.client
import io
import json
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from det_coco.rle import decode_counts
from det_models import Detections, describe, load
from det_models.__main__ import main
from det_models.changes import with_limits
from det_models.server import Limits, application
from testing.browser import browsing
from testing.processes import start_python
from testing.trained import NAMES, random_network, small_model

TINY = small_model()


def picture(height: int = 48, width: int = 72, seed: int = 0, kind: str = "PNG") -> bytes:
    """The file of a smooth random picture."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(file, kind)
    return file.getvalue()


class Stand:
    """A detector that remembers what it was shown, and finds the whole of each picture."""

    config, tasks, categories = TINY, ("bbox",), {1: "thing"}

    def __init__(self, work: Callable[[list[np.ndarray]], None] = lambda images: None) -> None:
        self.shown: list[int] = []
        self.work = work

    def predict(self, images: list[np.ndarray], *, batch_size: int) -> list[Detections]:
        self.shown.append(len(images))
        self.work(images)
        return [
            Detections(
                boxes=np.array([[0, 0, image.shape[1], image.shape[0]]], dtype=np.float32),
                scores=np.array([0.75], dtype=np.float32),
                labels=np.zeros(1, dtype=np.int64),
                categories=self.categories,
                category_ids=np.ones(1, dtype=np.int64),
                size=image.shape[:2],
            )
            for image in images
        ]


Answer = tuple[int, dict[str, str], Any]


async def ask(app: Any, address: str, body: bytes = b"", method: str = "POST", pause: float = 0.0) -> Answer:
    """(status, headers, JSON) of a request to an ASGI application, whose body comes in two parts."""
    path, _, query = address.partition("?")
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": []}
    parts = [body[: len(body) // 2], body[len(body) // 2 :]]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not parts:
            await asyncio.Event().wait()
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    try:
        await app(scope, receive, send)
    except RuntimeError:  # which a server would log
        assert sent
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], headers, json.loads(content)


def asked(app: Any, *requests: tuple[Any, ...], after: Callable[[], object] = lambda: None) -> list[Answer]:
    """The answers to requests that come at the same time."""

    async def together() -> list[Answer]:
        async with app.router.lifespan_context(app):
            answers = await asyncio.gather(*(ask(app, *request) for request in requests))
            after()
            return answers

    return asyncio.run(together())


def test_concurrent_requests_share_a_batch_and_get_their_own_answers():
    detector = Stand()
    app = application(detector, batch=4, wait=600.0)
    answers = asked(app, *[("/detect", picture(10 + n, 20 + n)) for n in range(8)])
    assert [status for status, _, _ in answers] == [200] * 8
    for number, (_, _, content) in enumerate(answers):
        height, width = 10 + number, 20 + number
        assert (content["height"], content["width"]) == (height, width)
        assert content["detections"] == [
            {"name": "thing", "box": [0, 0, width, height], "category_id": 1, "score": 0.75}
        ]
    assert detector.shown == [4, 4]


def test_rows_of_coco_and_scores():
    app = application(Stand())
    rows, none = asked(app, ("/coco?image_id=7", picture(10, 20)), ("/coco?image_id=7&min_score=0.8", picture()))
    assert rows[2] == [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 20, 10], "score": 0.75}]
    assert none[2] == []


def test_what_is_wrong_is_said_in_json():
    limits = Limits(megabytes=0.05, megapixels=0.01)
    requests = {
        ("/detect", b"no picture"): (400, "The image that was sent cannot be read: it is in none of the formats"),
        ("/detect", b""): (400, "The image that was sent is an empty file"),
        ("/detect", b"%PDF-1.4 ..."): (400, "it is a PDF file; export its pages as PNG"),
        ("/detect", picture()[:200]): (400, "The image that was sent cannot be read"),
        ("/detect", picture(101, 100)): (413, "may have 0.01 megapixels, and this one has 100 x 101."),
        ("/detect", b"x" * 50_001): (413, "may have 0.05 megabytes, and this one has more."),
        ("/detect?min_score=7", picture()): (422, "min_score: Input should be less than or equal to 1, got '7'."),
        ("/detect?min_score=x", picture()): (422, "min_score: "),
        ("/coco", picture()): (422, "image_id: Field required"),
        ("/nothing", b""): (404, "Not Found"),
        ("/detect", b"", "GET"): (405, "Method Not Allowed"),
    }
    detector = Stand()
    for request, (status, says) in requests.items():
        ((got, _, content),) = asked(application(detector, limits=limits), request)
        assert got == status, content
        assert says in content["detail"]
    assert sum(detector.shown) == 0


def test_a_picture_that_cannot_be_read_does_not_harm_those_of_its_batch():
    app = application(Stand(), batch=3, wait=600.0)
    answers = asked(app, ("/detect", picture()), ("/detect", picture()[:200]), ("/detect", picture()))
    assert [status for status, _, _ in answers] == [200, 400, 200]


def test_a_detector_that_fails_is_asked_again():
    def fail(images: list[np.ndarray]) -> None:
        if images[0].shape[0] == 13:
            raise RuntimeError("out of memory")

    app = application(Stand(fail), batch=1)
    answers = asked(app, ("/detect", picture(13)), ("/detect", picture()))
    assert [status for status, _, _ in answers] == [500, 200]
    assert "The detector failed, which the server's log tells more of: out of memory" in answers[0][2]["detail"]


def test_too_slow_and_too_many():
    """A request that nobody waits for is not looked at; one beyond the limit is refused at once."""
    released = threading.Event()
    detector = Stand(lambda images: released.wait(600))
    app = application(detector, batch=1, limits=Limits(seconds=0.5, waiting=3))
    answers = asked(app, *[("/detect", picture())] * 5, after=released.set)
    assert sorted(status for status, _, _ in answers) == [503, 503, 504, 504, 504]
    refused = next(answer for answer in answers if answer[0] == 503)
    assert refused[1]["retry-after"] == "1"
    assert refused[2]["detail"] == "3 requests are waiting. Come back in a second."
    late = next(answer for answer in answers if answer[0] == 504)
    assert late[2]["detail"] == "There was no answer within 0.5 seconds."
    assert sum(detector.shown) == 1
    slow = asked(application(Stand(), limits=Limits(seconds=0.5)), ("/detect", picture(), "POST", 10.0))
    assert slow[0][0] == 504


def post(host: str, port: int, path: str, body: bytes) -> Any:
    connection = http.client.HTTPConnection(host, port, timeout=300)
    connection.request("POST", path, body)
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    assert response.status == 200, content
    return content


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that finds ten things at most."""
    model = with_limits(small_model(), max_detections=10)
    path = tmp_path_factory.mktemp("weights") / "best.pt"
    config = describe(model, NAMES)
    torch.save({"format": "det-engine checkpoint", "model": random_network(model).state_dict(), "config": config}, path)
    return path


@pytest.fixture(scope="module")
def server(weights: Path) -> Iterator[tuple[str, int, Any]]:
    """(host, port, process) of `python -m det_models serve`, which Ctrl-C ends."""
    process = start_python("-m", "det_models", "serve", "--weights", weights, "--port", 0, "--device", "cpu")
    assert process.stdout is not None
    assert process.stderr is not None
    lines = [process.stdout.readline(), process.stdout.readline()]
    address = re.fullmatch(r"http://([\d.]+):(\d+) \(Ctrl-C ends it\)\n", lines[1])
    assert address, (lines, process.stderr.read())
    assert lines[0].startswith("Mask R-CNN from ")
    yield address[1], int(address[2]), process
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == 130
    assert complaints == ""


def test_the_answers_are_the_detectors(server, weights):
    detector = load(weights, device="cpu")
    found = detector.predict(Image.open(io.BytesIO(picture())))
    rows = post(*server[:2], "/coco?image_id=3", picture())
    assert rows == found.to_coco(3)
    content = post(*server[:2], "/detect?min_score=0.3", picture())
    above = found[found.scores >= 0.3]
    assert [one["name"] for one in content["detections"]] == above.names.tolist()
    assert [one["box"] for one in content["detections"]] == above.boxes.tolist()
    assert [one["segmentation"] for one in content["detections"]] == above.rle


def resident(process: Any) -> float:
    """Megabytes of memory that a process has."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


def test_whoever_leaves_during_an_upload_leaves_no_trace(server):
    host, port, _ = server
    with socket.create_connection((host, port)) as connection:
        connection.sendall(b"POST /detect HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\nbegin")
    assert post(host, port, "/detect", picture())["height"] == 48


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_two_hundred_at_once_lose_nothing_and_leave_nothing(server):
    """Pictures of a megabyte each: those of one round would show."""
    host, port, process = server
    sizes = [(500 + n % 7, 700 + n) for n in range(200)]
    files = [picture(*size, kind="JPEG") for size in sizes]

    def round_trip() -> list[tuple[int, int]]:
        with ThreadPoolExecutor(200) as pool:
            answers = list(pool.map(lambda file: post(host, port, "/detect?min_score=0.3", file), files))
        return [(content["height"], content["width"]) for content in answers]

    assert round_trip() == sizes
    before = resident(process)
    assert round_trip() == sizes
    assert resident(process) - before < 60


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--weights", "nothing.pt"), "nothing.pt"),
        (("--weights", "best.pt", "--port", 99999999), "Nothing can listen at port 99999999 of 127.0.0.1"),
        (("--weights", "best.pt", "--batch", 0), "--batch must be at least 1, got 0"),
        (("--weights", "best.pt", "--device", "gpu"), "device 'gpu' cannot be used"),
    ],
)
def test_what_cannot_be_served(options, says, weights, monkeypatch, capsys):
    monkeypatch.chdir(weights.parent)
    assert main(["serve", *map(str, options)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error


def test_without_fastapi_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "--weights", "best.pt"]) == 2
    assert "pip install 'det-models[serve]'" in capsys.readouterr().err


def test_the_commands_are_named(capsys):
    assert main(["--help"]) == 0
    assert "serve      Serve a detector on this machine" in capsys.readouterr().out
    assert main(["sevre"]) == 2
    assert "There is no command 'sevre' (there are: serve)." in capsys.readouterr().err


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (400, True)])
def test_the_page(server, tmp_path, width, dark):
    """A picture is chosen; the slider and the classes say what is drawn and what the JSON holds."""
    host, port, _ = server
    (tmp_path / "street.png").write_bytes(picture(240, 360))
    everything = post(host, port, "/detect?min_score=0.05", picture(240, 360))["detections"]
    middle = round(everything[len(everything) // 2]["score"], 2)
    with browsing(f"http://{host}:{port}/", width=width, dark=dark) as page:
        page.wait_for_function("document.title === 'Mask R-CNN'")
        assert page.locator("canvas").is_hidden()
        page.set_input_files("input[type=file]", tmp_path / "street.png")
        page.locator("#classes button").first.wait_for()

        def shown() -> list[dict[str, Any]]:
            return json.loads(page.locator("#json").inner_text())

        def pixels() -> str:
            return page.evaluate("document.querySelector('canvas').toDataURL()")

        page.locator("#score").fill("0.05")
        assert shown() == everything
        assert page.locator("#status").inner_text().startswith(f"{len(everything)} of {len(everything)} detections")
        drawn = pixels()
        page.locator("#masks").uncheck()
        assert pixels() != drawn
        page.locator("#masks").check()
        assert pixels() == drawn
        page.locator("#score").fill(str(middle))
        assert shown() == [one for one in everything if one["score"] >= middle] != everything
        name = shown()[0]["name"]
        page.locator("#classes button", has_text=name).click()
        assert shown() == [one for one in everything if one["score"] >= middle and one["name"] != name]
        page.locator("#classes button", has_text=name).click()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        size = page.evaluate("(({width, height}) => [width, height])(document.querySelector('canvas'))")
        assert size == [720, 480]  # a small picture is enlarged


def test_the_masks_of_the_page_are_the_detectors(server, tmp_path):
    """Run lengths are decoded by a script of the page."""
    host, port, _ = server
    found = post(host, port, "/detect", picture(240, 360))["detections"]
    with browsing(f"http://{host}:{port}/") as page:
        for one in found[:5]:
            runs = page.evaluate("runsOf", one["segmentation"]["counts"])
            assert runs == decode_counts(one["segmentation"]["counts"]).tolist()


def test_the_page_says_what_is_wrong(server, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")

    said = []

    def show() -> None:
        with browsing(f"http://{server[0]}:{server[1]}/") as page:
            page.set_input_files("input[type=file]", tmp_path / "notes.txt")
            page.locator("#status.bad").wait_for()
            said.append(page.locator("#status").inner_text())

    with pytest.raises(AssertionError):  # a browser's console complains of every error of a server
        show()
    assert "The image that was sent cannot be read" in said[0]
