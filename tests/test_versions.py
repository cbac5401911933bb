"""The first page says with which versions the packages are tested."""

from tools import versions


def test_the_table_is_what_is_tested():
    page = versions.README.read_text(encoding="utf-8")
    assert versions.TABLE.findall(page) == [versions.table()], "run: hatch run python tools/versions.py"


def test_the_table_follows_what_is_pinned(monkeypatch):
    texts = versions._text

    def changed(name):
        return texts(name).replace("torch==", "torch==9.") if name == "constraints.txt" else texts(name)

    before = versions.table()
    monkeypatch.setattr(versions, "_text", changed)
    assert versions.table().count("| 9.") == before.count("`hatch run test`") + before.count("npu:check") == 2
