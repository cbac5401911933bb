"""One page that needs nothing else, as the text that it is and in a real browser."""

from html.parser import HTMLParser

import pytest
from PIL import Image

from det_coco import DataError
from det_coco.page import Column, Html, Page, Section, facts, folded, grid, heading, link, picture, table, text
from det_coco.plots import axes, plot
from testing.browser import browsing, column

NASTY = "<script>alert('&\"')</script>"
ROWS = [("b", 2, 0.5), ("c", 10, None), ("a", 1, -0.25), ("d", 300, float("nan"))]


def curve(title: str = "a $curve$"):
    drawn = axes(title, "recall", "precision")
    drawn.plot([0, 1], [1, 0], "o-", label="a < b")
    return drawn


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    sections = [
        Section(
            title="A table", pieces=[table(["name", Column("count", hint="of all"), Column("gain", "+.2f")], ROWS)]
        ),
        Section(title="Plots & pictures", pieces=[grid([plot(curve(), "below"), plot(curve("another"))])]),
        Section(title="Folded", pieces=[folded("more", [picture(Image.new("RGB", (900, 300)), "caption")])]),
        Section(title="Wide", pieces=[table([f"a long column {n}" for n in range(30)], [range(30)], sortable=False)]),
    ]
    whole = Page(
        title="A page", summary=[text("What it says."), facts({"images": 12, "share": 0.5})], sections=sections
    )
    return whole.write(tmp_path_factory.mktemp("page") / "new" / "page.html")


class Tags(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words += data


def test_all_text_is_escaped():
    drawn = axes(NASTY, NASTY, NASTY)
    drawn.plot([0, 1], [0, 1], label=NASTY)
    pieces = [
        text(NASTY), heading(NASTY), link(NASTY, NASTY), facts({NASTY: NASTY}), folded(NASTY, [text(NASTY)]),
        table([NASTY, Column(NASTY, hint=NASTY)], [(NASTY, NASTY)]), plot(drawn, NASTY),
        picture(Image.new("RGB", (2, 2)), NASTY), grid([NASTY]),
    ]  # fmt: skip
    found = Tags(Page(title=NASTY, summary=pieces, sections=[Section(title=NASTY, pieces=pieces)]).html())
    assert found.tags.count("script") == 1
    # Everywhere but in the hint, which is an attribute.
    assert found.words.count(NASTY) == 2 * 18 + 4


def test_html_goes_in_as_it_is():
    assert '<td><a href="https://example.org/?a=1&amp;b">here</a></td>' in table(
        ["a"], [[link("https://example.org/?a=1&b", "here")]]
    )
    assert "<figcaption><b>x</b></figcaption>" in picture(Image.new("RGB", (2, 2)), Html("<b>x</b>"))


def test_numbers_have_keys_and_formats():
    found = table(["name", "count", Column("gain", "+.2f")], [("a", 1234567, 0.125), ("b", None, float("nan"))])
    assert '<td class=number data-key="1234567">1,234,567</td>' in found
    assert '<td class=number data-key="0.125">+0.12</td>' in found
    assert found.count("<td class=number>–</td>") == 2


def test_rows_have_a_cell_for_each_column():
    with pytest.raises(ValueError, match="each of the 2 columns"):
        table(["a", "b"], [("x",)])


def test_large_pictures_are_reduced():
    small, large = (picture(Image.effect_noise((side, side), 50)) for side in (320, 4000))
    assert 'width="640" height="640"' in large
    assert 'width="320" height="320"' in small
    assert len(large) < 6 * len(small)


def test_a_plot_takes_the_colour_of_the_page(tmp_path):
    assert "currentColor" in plot(curve())
    assert "#000000" not in plot(curve())
    assert "a $curve$" in plot(curve())
    assert plot(curve()) == plot(curve())


def test_a_page_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/page\.html cannot be written: .*\.$"):
        Page(title="x", summary=[], sections=[]).write(tmp_path / "file" / "page.html")


def test_columns_sort_in_a_browser(page):
    with browsing(page) as shown:
        head = shown.get_by_role("button", name="count")
        head.click()
        assert column(shown, 0, 1) == ["300", "10", "2", "1"]
        head.click()
        assert column(shown, 0, 1) == ["1", "2", "10", "300"]
        shown.get_by_role("button", name="gain").click()
        assert column(shown, 0, 2) == ["+0.50", "-0.25", "–", "–"]
        shown.get_by_role("button", name="name").click()
        assert column(shown, 0, 0) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (400, True)])
def test_a_page_fits_its_window(page, width, dark):
    with browsing(page, width=width, dark=dark) as shown:
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        bright = sum(map(int, shown.evaluate("getComputedStyle(document.body).backgroundColor")[4:-1].split(",")))
        assert (bright > 700) is not dark
        ink = shown.locator("svg text").first.evaluate("e => getComputedStyle(e).fill")
        assert ink == shown.evaluate("getComputedStyle(document.body).color")
