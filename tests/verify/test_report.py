"""The picture of a refused history."""

from __future__ import annotations

from pathlib import Path

from raftkv.verify import check, linearizability, read_history, report, revisions
from raftkv.verify.history import Operation
from tests.verify.notation import LOST, get, put

DOCUMENT = (Path(__file__).parents[2] / "docs" / "verify.md").read_text(encoding="utf-8")
STALE = [
    put("c1", "a=1", 0, 1, 1),
    put("c1", "b=1", 0, 1, 2),
    put("c2", "a=2", 2, 3, 3),
    put("c4", "a=3", 2, LOST),
    get("c3", "a=1", 4, 5, 1, mod=1),
]


def test_text() -> None:
    assert report.text(STALE, revisions.check(STALE)).splitlines() == [
        "an answer at revision 1, but 3 was answered before its call",
        "",
        "  c1  put a=1  done @1    |-----------|",
        "! c2  put a=2  done @3                            |----------|",
        "  c4  put a=3  unknown                            |~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~",
        "! c3  get a    1 mod1 @1                                                 |-----------|",
    ]


def test_the_documentation_is_true() -> None:
    blocks = DOCUMENT.split("```")[1::2]
    lines = next(block.removeprefix("json") for block in blocks if block.startswith("json"))
    assert check(read_history(lines.splitlines()))
    assert blocks[-1].lstrip("\n") == report.text(STALE, revisions.check(STALE))


def test_text_of_a_search_shows_the_order() -> None:
    lines = report.text(STALE, linearizability.check(STALE)).splitlines()
    assert lines[0] == "key b'a': no order of its operations explains all results"
    assert [line.split()[1] for line in lines if line.startswith("!")] == ["c2", "c3"]
    assert lines[-2:] == ["an order that fits, up to there:", "  c1  put a=1  done @1"]


def test_a_picture_is_small() -> None:
    crowd: list[Operation] = [put(f"c{n}", f"a={n}{'x' * 100}", n, 1000, n + 1) for n in range(500)]
    crowd.append(get("r", "a=nobody", 1001, 1002, 500, mod=500))
    verdict = revisions.check(crowd)
    lines = report.text(crowd, verdict).splitlines()
    assert len(lines) <= report.MAX_SHOWN_OPERATIONS + 5
    assert max(map(len, lines)) < 200


def test_html_is_escaped_and_whole() -> None:
    history = [put("<c1>", "a=<b>", 0, 1, 1), get("c2", "a=&", 2, 3, 1, mod=1)]
    shown = report.page(history, revisions.check(history))
    assert "<c1>" not in shown
    assert "&lt;c1&gt;" in shown
    assert "put a=&lt;b&gt;" in shown
    assert shown.count("<tr>") == 2
    assert "culprit" in shown
