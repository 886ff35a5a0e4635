"""What `dvc plots show` is told to draw: a line a site and run, and nothing where nothing was measured."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from dvc_render.vega import VegaRenderer

REPO = Path(__file__).resolve().parents[1]
_CURVES = """round,site,held_out_loss,train_loss
0,all sites,0.9,
0,red,0.8,
1,all sites,0.5,0.7
1,red,0.4,0.6
"""


@pytest.mark.parametrize(
    "plot", yaml.safe_load((REPO / "dvc.yaml").read_text())["plots"], ids=lambda plot: next(iter(plot))
)
def test_one_line_a_site_and_run_without_what_was_not_measured(plot: dict[str, dict]) -> None:  # type: ignore[type-arg]
    (described,) = plot.values()
    ((_, y),) = described["y"].items()
    rows = [{**row, "rev": rev} for rev in ("workspace", "fedprox") for row in csv.DictReader(_CURVES.splitlines())]
    properties = {"template": described["template"], "template_dir": str(REPO / ".dvc/plots"), "x": "round", "y": y}

    filled = VegaRenderer(rows, "curves", **properties).get_filled_template()

    assert filled["encoding"]["color"]["field"] == "site"
    assert filled["encoding"]["strokeDash"]["field"] == "rev"
    assert (filled["encoding"]["x"]["field"], filled["encoding"]["y"]["field"]) == ("round", y)
    assert filled["transform"] == [{"filter": f"isValid(datum['{y}']) && datum['{y}'] !== ''"}]
    assert "<DVC_METRIC" not in json.dumps(filled)
    assert len(filled["data"]["values"]) == len(rows)
