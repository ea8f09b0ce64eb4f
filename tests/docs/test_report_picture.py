"""The picture on the front page is of today's page and of the accuracy that the demo promises."""

import json
import runpy

import pytest
from PIL import Image

from tests.conftest import ROOT

PICTURE = ROOT / "docs" / "images" / "report.png"


def test_the_picture_was_made_from_these_templates_and_from_the_stored_demo():
    script = runpy.run_path(str(ROOT / "docs" / "hooks" / "report_picture.py"))
    with Image.open(PICTURE) as picture:
        notes = dict(picture.info)
    remedy = "run `python docs/hooks/report_picture.py`"
    assert notes["templates"] == script["digest_templates"](), remedy
    stored = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text(encoding="utf-8"))
    (run,) = [run for variant in stored["variants"].values() for run in variant["runs"]]
    assert float(notes["overall_accuracy"]) == pytest.approx(run["overall_accuracy"], abs=1e-6)
