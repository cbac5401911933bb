import dataclasses
import hashlib
import http.server
import os
import pickle
import socket
import threading

import numpy as np
import pytest

from det_backbones import WEIGHTS, PretrainedWeights, WeightsError, cache_directory, find_weights

DATA = pickle.dumps({"conv1_w": np.arange(200_000, dtype=np.float32)})
SUM = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def _own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("DET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "fvcore"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def asked():
    """What ranges /cut was asked for."""
    return []


@pytest.fixture
def server(asked):
    """Serves DATA.

    /short announces more than it sends, /cut ends after a third of what is asked for, and goes on from where it is
    asked to, /html is a page, the rest is not found.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/cut":
                return self.send_a_third()
            data, length = {
                "/good": (DATA, len(DATA)),
                "/short": (DATA[:-1000], len(DATA)),
                "/html": (b"<html>login</html>", 18),
            }.get(self.path, (None, 0))
            if data is None:
                self.send_error(404)
                return None
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(data)
            return None

        def send_a_third(self):
            asked.append(self.headers.get("Range"))
            start = int(asked[-1].removeprefix("bytes=").removesuffix("-")) if asked[-1] else 0
            if start >= len(DATA):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
            self.send_header("Content-Length", str(len(DATA) - start))
            self.end_headers()
            self.wfile.write(DATA[start : start + len(DATA) // 3 + 1])

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def entry(url, sha256=SUM[:8]):
    return PretrainedWeights(**{
        **{field.name: getattr(WEIGHTS["R-50.pkl"], field.name) for field in dataclasses.fields(PretrainedWeights)},
        "file": "test.pkl", "url": url, "sha256": sha256,
    })  # fmt: skip


def kept():
    return sorted(path.name for path in cache_directory().iterdir())


def test_downloads_once(server):
    seen = []
    path = find_weights(entry(server + "/good"), progress=lambda *state: seen.append(state))
    assert path == cache_directory() / "test.pkl"
    assert path.read_bytes() == DATA
    assert seen[-1] == ("test.pkl", len(DATA), len(DATA))
    assert kept() == ["test.pkl"]
    assert find_weights(entry("http://127.0.0.1:1/gone")) == path


def test_file_url(tmp_path):
    (tmp_path / "there").write_bytes(DATA)
    assert find_weights(entry((tmp_path / "there").as_uri())).read_bytes() == DATA


def test_wrong_checksum_leaves_nothing(server):
    with pytest.raises(WeightsError, match=f"SHA-256 sum {SUM}, expected 00000000; it was not kept"):
        find_weights(entry(server + "/good", "00000000"))
    assert kept() == []


@pytest.mark.parametrize("sha256", [SUM[:8], None])
def test_an_interrupted_download_leaves_what_came(server, sha256):
    ended = f"the connection ended after {len(DATA) - 1000} of {len(DATA)} bytes.*the next try goes on from there"
    with pytest.raises(WeightsError, match=ended):
        find_weights(entry(server + "/short", sha256))
    assert kept() == ["test.pkl.partial"]
    assert find_weights(entry(server + "/cut", sha256)).read_bytes() == DATA
    assert "test.pkl.partial" not in kept()


def test_a_user_who_interrupts_keeps_what_came(server):
    def stop(*state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_weights(entry(server + "/good"), progress=stop)
    assert kept() == ["test.pkl.partial"]


def test_a_cut_connection_is_taken_up_where_it_ended(server, asked):
    seen = []
    path = find_weights(entry(server + "/cut"), progress=lambda *state: seen.append(state))
    third = len(DATA) // 3 + 1
    assert path.read_bytes() == DATA
    assert asked == [None, f"bytes={third}-", f"bytes={2 * third}-"]
    assert seen[-1] == ("test.pkl", len(DATA), len(DATA))
    assert kept() == ["test.pkl"]


@pytest.mark.parametrize("beginning", [b"older" * 1000, DATA + b"longer", DATA[:1000]], ids=["older", "longer", "good"])
def test_what_an_earlier_download_left_is_used_where_it_is_right(server, beginning):
    cache_directory().mkdir(parents=True)
    (cache_directory() / "test.pkl.partial").write_bytes(beginning)
    assert find_weights(entry(server + "/cut")).read_bytes() == DATA
    assert kept() == ["test.pkl"]


def test_an_md5_sum_is_checked_too(server):
    md5 = hashlib.md5(DATA).hexdigest()[:6]
    good = dataclasses.replace(entry(server + "/good", None), md5=md5)
    assert find_weights(good).read_bytes() == DATA
    assert kept() == ["test.pkl"]
    with pytest.raises(WeightsError, match=r"is damaged: it has the MD5 sum \w+, expected 0000"):
        find_weights(dataclasses.replace(good, md5="0000"))


def test_without_published_sum_the_content_is_checked(server):
    with pytest.raises(WeightsError, match="is not a weights file, and was not kept"):
        find_weights(entry(server + "/html", None))
    assert kept() == []


def test_without_published_sum_the_own_is_kept(server):
    path = find_weights(entry(server + "/good", None))
    assert kept() == ["test.pkl", "test.pkl.sha256"]
    assert find_weights(entry(server + "/good", None)) == path
    path.write_bytes(DATA[:-1])
    with pytest.raises(WeightsError, match=rf"test.pkl is damaged: .* expected {SUM}"):
        find_weights(entry(server + "/good", None))


def test_damaged_file_in_the_cache(server):
    cache_directory().mkdir(parents=True)
    (cache_directory() / "test.pkl").write_bytes(DATA[:-1])
    with pytest.raises(WeightsError, match=r"is damaged: .* Delete it, and get it again from http"):
        find_weights(entry(server + "/good"))


def test_not_found_on_the_server(server):
    with pytest.raises(WeightsError, match=r"could not be downloaded \(Not Found\)"):
        find_weights(entry(server + "/gone"))


def test_no_network():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/R-50.pkl"
        with pytest.raises(WeightsError) as caught:
            find_weights(entry(url))
    message = str(caught.value)
    assert message.startswith("test.pkl could not be downloaded (")
    assert f"Download {url} and put the file at {cache_directory() / 'test.pkl'}" in message
    assert "\n" not in message
    assert kept() == []


def test_without_download():
    with pytest.raises(WeightsError, match=r"R-50.pkl is not on this machine. Download https://dl.fbaipublicfiles.com"):
        find_weights("R-50.pkl", download=False)


def test_cache_that_cannot_be_written(tmp_path, monkeypatch, server):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DET_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"could not be written to .* Set DET_CACHE"):
        find_weights(entry(server + "/good"))


def test_paths_and_other_caches(tmp_path):
    own = tmp_path / "mine.bin"
    own.write_bytes(b"x")
    assert find_weights(own) == own
    assert find_weights(str(own)) == own
    theirs = tmp_path / "fvcore" / "detectron2" / "ImageNetPretrained" / "MSRA" / "R-101.pkl"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"x")
    assert find_weights("R-101.pkl", download=False) == theirs
    hub = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    hub.parent.mkdir(parents=True)
    hub.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"resnet18-f37072fd.pth is not on this machine"):
        find_weights("resnet18-f37072fd.pth", download=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50", "neither a file nor a published weights file. Did you mean resnet50-"),
        ("R-5O.pkl", "Did you mean R-50.pkl"),
        ("folder/R-50.pkl", "The weights file folder/R-50.pkl does not exist."),
        ("", "neither a file nor"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(WeightsError) as caught:
        find_weights(name)
    assert message in str(caught.value)


def test_catalogue():
    assert set(WEIGHTS) == {
        "R-50.pkl", "R-101.pkl", "resnet18-f37072fd.pth", "resnet34-b627a593.pth", "resnet50-0676ba61.pth",
        "resnet101-63fe2227.pth", "resnet152-394f9c45.pth", "resnext101_32x8d-8ba56ff5.pth",
        "resnet101_reducedfc.pth", "resnet50-19c8e357.pth", "darknet53.pth",
    }  # fmt: skip
    for name, weights in WEIGHTS.items():
        assert weights.file == name == weights.url.rsplit("/", 1)[1]
        assert weights.stride_in_1x1 == (weights.pixels.order == "bgr") == name.endswith(".pkl")
        assert weights.sha256 is None or weights.sha256 in name


def test_torchvision_agrees_with_the_catalogue():
    models = pytest.importorskip("torchvision.models")
    published = {weights.url.rsplit("/", 1)[1]: weights.url for model in models.list_models()
                 if model.startswith("resne") for weights in models.get_model_weights(model)}  # fmt: skip
    for name, weights in WEIGHTS.items():
        if "download.pytorch.org" in weights.url:
            assert published[name] == weights.url


def test_a_mirror_has_the_same_file_names(server, monkeypatch):
    monkeypatch.setenv("DET_WEIGHTS_MIRROR", f"{server}/")
    found = find_weights(dataclasses.replace(entry("http://nowhere.invalid/folder/good"), file="good"))
    assert found.read_bytes() == DATA


def test_what_killed_downloads_left_is_used_or_cleared(server, asked):
    cache_directory().mkdir(parents=True)
    old, older, new = (cache_directory() / f"test.pkl.{name}.partial" for name in ("old", "older", "new"))
    for leftover in (old, older, new):
        leftover.write_bytes(DATA[:5000])
    os.utime(old, (0, 0))
    os.utime(older, (0, 0))
    find_weights(entry(f"{server}/cut"))
    assert asked[0] == "bytes=5000-"
    assert kept() == ["test.pkl", "test.pkl.new.partial"]  # one is still being written
