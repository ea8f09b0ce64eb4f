"""The code on the page "From Python" runs as it is, one block after the other."""

import re

import numpy as np
import pytest
import rioxarray  # noqa: F401 - gives arrays their attribute `rio`
import xarray

from hsi_se.scene.synthetic import make_synthetic_scene
from tests.conftest import ROOT

BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def names():
    made = make_synthetic_scene(seed=0, rows=24, cols=24, bands=16)
    labels = np.where(made.labels > 3, 0, made.labels)
    coords = {"y": 24.0 - np.arange(24), "x": np.arange(24.0)}
    array = xarray.DataArray(made.cube, dims=("y", "x", "band"), coords=coords).rio.write_crs("EPSG:32633")
    return {"cube": made.cube, "labels": labels, "data_array": array, "n": np.arange(len(labels))}


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:Use .@. matmul")
@pytest.mark.usefixtures("quick_baseline")
def test_every_block_of_the_page_runs(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in BLOCKS:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert (tmp_path / "map.tif").is_file()
