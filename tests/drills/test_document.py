"""Each drill writes its own section of the document, and nothing else of it."""

from __future__ import annotations

from pathlib import Path

import document
import pytest
from harness import DrillError

TEXT = "a\n<!-- one: begin -->\nold\n<!-- one: end -->\nb\n<!-- two: begin -->\n<!-- two: end -->\nc\n"


def test_only_what_is_between_the_marks_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "document.md"
    path.write_text(TEXT)
    monkeypatch.setattr(document, "DOCUMENT", path)
    document.write_section("one", ["x\n", "y\n"])
    expected = TEXT.replace("old\n", "\nx\n\ny\n\n")
    assert path.read_text() == expected
    document.write_section("one", ["x\n", "y\n"])
    assert path.read_text() == expected
    with pytest.raises(DrillError, match="<!-- three: begin -->"):
        document.write_section("three", ["x\n"])
    assert path.read_text() == expected


@pytest.mark.parametrize("script", ["scripts/bench", "scripts/failover"])
def test_the_document_has_the_marks(script: str) -> None:
    text = document.DOCUMENT.read_text()
    assert text.count(f"<!-- {script}: begin -->\n") == text.count(f"<!-- {script}: end -->\n") == 1
