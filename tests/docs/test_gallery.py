"""The gallery of the site: what makes each report is said, and a report without its scene is left out by name."""

import re
import runpy
from dataclasses import replace

import pytest

from hsi_se.config.yaml_file import load_config
from tests.conftest import CHROMIUM, ROOT

HOOK = runpy.run_path(str(ROOT / "docs" / "hooks" / "gallery.py"))
EXAMPLES = HOOK["EXAMPLES"]


def test_the_gallery_has_three_reports_whose_configs_are_valid_and_quick():
    assert [example.name for example in EXAMPLES] == [
        "indian-pines-at-random", "indian-pines-on-new-ground", "enmap-potsdam"
    ]  # fmt: skip
    for example in EXAMPLES:
        config = load_config(ROOT / example.config, example.changes)
        assert config.train.epochs <= 6
    assert HOOK["MARKER"] in (ROOT / "docs" / "gallery.md").read_text("utf-8")
    assert "docs/hooks/gallery.py" in (ROOT / "mkdocs.yml").read_text("utf-8")


@pytest.fixture
def gallery(tmp_path, monkeypatch):
    """The hook with an empty cache, and without any scene."""
    values = HOOK["make_report"].__globals__
    monkeypatch.setitem(values, "CACHE", tmp_path / "cache")
    monkeypatch.setitem(values, "DATASETS", (tmp_path / "datasets",))
    return values


def test_a_report_whose_scene_is_not_there_is_named_and_no_file_is_linked(gallery):
    example = EXAMPLES[-1]
    assert gallery["make_report"](example) is None
    text = gallery["render"](example)
    assert "was built without the scene in `datasets/enmap_potsdam`" in text
    assert "](gallery/" not in text
    assert "hsi-se train docs/hooks/enmap_potsdam.yaml --data datasets/enmap_potsdam --out run" in text
    assert (ROOT / example.config).read_text("utf-8").splitlines()[1] in text


@pytest.mark.slow
def test_a_report_is_made_once_and_shown_with_its_picture_and_its_config(gallery, tmp_path):
    changes = (
        "scene={synthetic: 0, rows: 24, cols: 24, bands: 16}",
        "reduction={kind: none}",
        "patch.size=1",
        "model={name: lda}",
        "train={epochs: 1}",
    )
    example = replace(
        EXAMPLES[0], name="tiny", config="configs/demo.yaml", changes=changes, folder="tiny", is_explained=False
    )
    (tmp_path / "datasets" / "tiny").mkdir(parents=True)
    made = gallery["make_report"](example)
    assert sorted(path.name for path in made.iterdir()) == ["tiny.html", *(["tiny.png"] if CHROMIUM else [])]
    before = (made / "tiny.html").stat().st_mtime_ns
    text = gallery["on_page_markdown"]("# Gallery\n")
    assert text == "# Gallery\n"
    shown = gallery["render"](example)
    assert "[Open the report](gallery/tiny.html)" in shown
    picture = r"\[!\[.*\]\(gallery/tiny\.png\)\{ \.shadow \}\]\(gallery/tiny\.html\)"
    assert bool(re.search(picture, shown)) == bool(CHROMIUM)
    assert (made / "tiny.html").stat().st_mtime_ns == before, "from the cache"
    assert gallery["digest"](example) != gallery["digest"](replace(example, title="another"))
