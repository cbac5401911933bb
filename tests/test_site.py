"""The documentation site: its pages and links, and the built pages in a browser where they were built."""

import functools
import http.server
import importlib
import threading
import tomllib
from xml.etree import ElementTree as ET

import pytest

from testing import ROOT
from testing.browser import browsing

SITE = ROOT / "tools" / "site"
BUILT = ROOT / "build" / "site" / "html"


@pytest.fixture
def tool(monkeypatch):
    """A module of tools/site, which runs as a folder."""
    monkeypatch.syspath_prepend(SITE)
    return importlib.import_module


def places(nav):
    for entry in nav:
        for value in entry.values():
            yield from places(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_navigation(tool):
    nav = list(places(tomllib.loads((SITE / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]))
    pages = tool("pages")
    made = {f"api/{name.replace('-', '_')}.md" for name in pages.PACKAGES}
    assert sorted(nav) == sorted({*pages.PLACES.values(), *made})


def test_links_of_the_repository_become_those_of_the_site(tool, tmp_path):
    pages = tool("pages")
    (tmp_path / "pictures").mkdir()
    pages.assemble(tmp_path / "docs", pictures=tmp_path / "pictures")
    batch = (tmp_path / "docs" / "parts" / "det-models.md").read_text(encoding="utf-8")
    assert "](../../" not in batch
    first = pages._linked("[a](data.md#x) [b](../packages/det-ops/README.md) [c](../LICENSE)", "docs/use.md", "use.md")
    assert first == "[a](data.md#x) [b](parts/det-ops.md) c"
    picture = pages._linked("![a](../../docs/pictures/x.png)", "packages/det-ops/README.md", "parts/det-ops.md")
    assert picture == "![a](../pictures/x.png)"
    with pytest.raises(SystemExit, match=r"links to nowhere\.md"):
        pages._linked("[a](nowhere.md)", "docs/use.md", "use.md")
    assert "`[a](nowhere.md)`" not in first
    assert pages._linked("```\n[a](nowhere.md)\n```\n", "docs/use.md", "use.md") == "```\n[a](nowhere.md)\n```\n"


def test_pictures_are_shown_where_they_were_drawn(tool, tmp_path):
    shown = tool("pages")._with_pictures
    page = "<!-- ![a](pictures/x.png)\n\nWhat one sees. -->\n<!-- more -->\n"
    assert shown(page, tmp_path) == "\n<!-- more -->\n"
    (tmp_path / "x.png").touch()
    (tmp_path / "more.md").write_text("7 objects")
    assert shown(page, tmp_path) == "![a](pictures/x.png)\n\nWhat one sees.\n7 objects\n"


def test_bars_are_of_one_scale(tool):
    picture = ET.fromstring(tool("charts").bars([("a & b", [(4, "four"), (1, "one")]), ("c", [(2, "two")])]))
    boxes = [float(element.get("width")) for element in picture.iter() if element.tag.endswith("rect")]
    assert boxes == [200, 50, 100]
    assert [element.text for element in picture.iter() if element.tag.endswith("text")] == [
        "a & b", "four", "one", "c", "two",
    ]  # fmt: skip


def test_options_in_running_text_are_not_broken(tool):
    whole = tool("pages").with_whole_options
    option = '<span class="option">--tile-merge</span>'
    assert (
        whole("<p><code>--tile-merge nms</code> and <a>--tile</a>") == f"<p><code>{option} nms</code> and <a>--tile</a>"
    )
    block = "<pre><span></span><code>predict --tile 640</code></pre>"
    assert whole(block) == block


def test_every_finding_is_on_its_page(tool):
    page = tool("pages").findings_page(ROOT / "findings")
    scripts = sorted((ROOT / "findings").glob("*.sh"))
    assert page.count("\n## ") == len(scripts) > 0
    for script in scripts:
        assert f"[{script.name}](findings/{script.name})" in page
    assert "Why a good guess is wrong" in page


def test_the_chart_has_the_newest_figures(tool, tmp_path):
    record = tmp_path / "results.jsonl"
    row = '{"bench": "infer", "model": "mask_rcnn", "device": "x86_64 CPU", "batch": 2, "size": [480, 640], '
    record.write_text(
        row + '"seconds": {"ours": 9, "torchvision": 9}}\n' + row + '"seconds": {"ours": 1, "torchvision": 2.5}}\n'
    )
    chart = tool("charts").benchmark_chart(record)
    ET.fromstring(chart)
    assert "torchvision 2.50 s, 2.50x" in chart
    assert "9.00" not in chart
    assert chart.count("<rect") == 2


def test_the_picture_of_the_house_has_every_arrow(tool):
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = ET.fromstring(tool("charts").graph(page))
    lines = [element for element in picture.iter() if element.tag.endswith("path")]
    boxes = [element for element in picture.iter() if element.tag.endswith("rect")]
    assert (len(boxes), len(lines)) == (page.count('["<b>'), page.count(" --> "))


def test_dead_links_are_found(tool, tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="b.html">1</a><a href="b.html#there">2</a><a href="#top">3</a>'
        '<a href="b.html#gone">4</a><img src="gone.png"><a href="https://example.org">5</a>'
    )
    (tmp_path / "b.html").write_text('<a href="a.html#top"></a><p id="there"></p>')
    dead = tool("links").dead_links(tmp_path)
    assert dead == ["a.html: b.html#gone leads nowhere", "a.html: gone.png leads nowhere"]


@pytest.fixture(scope="module")
def server():
    """Serves the built pages, since a script of theirs reads the index of their search."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=BUILT)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.skipif(not BUILT.is_dir(), reason="hatch run docs has not built it")
@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 900, 1400])
def test_built_pages_in_a_browser(width, dark, server):
    """Without a complaint on the console, nothing from other hosts, and no wider than the window."""
    with browsing(server, width=width, dark=dark) as page:
        for name in ("index", "architecture", "coming", "zh/npu", "api/det_ops"):
            page.goto(f"{server}/{name}.html")
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 1, (name, width)
            assert page.evaluate("document.documentElement.lang") == ("zh-CN" if name.startswith("zh/") else "en")
