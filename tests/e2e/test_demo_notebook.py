"""The notebook that walks through the demo: as git holds it, and what it finds when it is executed."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from tests_support import REPO

NOTEBOOK = REPO / "docs" / "demo.ipynb"


def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]


def test_it_is_valid_and_holds_no_outputs() -> None:
    nbformat.validate(notebook())
    cells = [cell for cell in notebook().cells if cell.cell_type == "code"]

    assert len(cells) > 5
    assert [cell.source for cell in cells if cell.outputs or cell.execution_count is not None] == []


@pytest.mark.release
def test_executed_it_federates_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    beside = tmp_path / "beside"
    for folder in (tmp_path / "temporary", beside):
        folder.mkdir()
    book = notebook()

    NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(beside)}}).execute()

    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    found = ast.literal_eval(book.cells[-2].outputs[0].data["text/plain"])
    losses = found["held-out loss"]
    assert found["rounds"] == [0, 1, 2]
    assert losses[-1] < losses[0] and len(losses) == 3
    for base, trained in found["action error in degrees"].values():
        assert 0 < trained < 90 and trained != base
    assert set(found["action error in degrees"]) == {"red-cube", "magenta-disc"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert [output.name for output in outputs if output.output_type == "error"] == []
    assert list(beside.iterdir()) == []
    assert list((tmp_path / "temporary").rglob("params.yaml")) == []
