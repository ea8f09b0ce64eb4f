"""Names of any script are readable in pictures, with and without a font for them."""

from pathlib import Path

import matplotlib.font_manager
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from PIL import Image

from hsi_se.prediction.class_map import ClassMap
from hsi_se.reports import fonts
from hsi_se.reports.figures import save_figure, save_map

CHINESE, ARABIC, EMOJI = "玉米", "قمح", "\N{EAR OF MAIZE}"


def make_font(path: Path, letters: str) -> Path:
    """Writes a font in which each letter is a black square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 900), (900, 900), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square, names = pen.glyph(), [f"u{ord(letter):x}" for letter in letters]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names, strict=True)})
    builder.setupGlyf(dict.fromkeys([".notdef", *names], square))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names], (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


@pytest.fixture
def install(monkeypatch):
    """Makes some font files those that are installed on the machine."""

    def only(*paths: Path) -> None:
        monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", lambda: list(map(str, paths)))
        fonts._list_installed.cache_clear()

    yield only
    fonts._list_installed.cache_clear()


def test_latin_greek_cyrillic_and_arabic_need_no_other_font(install):
    install()
    for text in ("Straße, été", "κ × 100 ± 2", "пшеница", ARABIC):
        assert [path.name for path in fonts.find_fonts([text])] == ["DejaVuSans.ttf"]
        assert fonts.spell(text, fonts.find_fonts([text])) == text


def test_an_installed_font_with_the_letters_is_found(install, tmp_path):
    square = make_font(tmp_path / "Square.ttf", CHINESE)
    install(make_font(tmp_path / "Other.ttf", "x"), square)
    found = fonts.find_fonts([f"2  {CHINESE}"])
    assert found[1:] == (square,)
    assert fonts.spell(CHINESE, found) == CHINESE


def test_a_font_that_cannot_be_read_or_has_no_outlines_is_passed_over(install, tmp_path):
    (tmp_path / "cjk-broken.ttf").write_bytes(b"no font")
    square = make_font(tmp_path / "Square.ttf", CHINESE)
    install(tmp_path / "cjk-broken.ttf", tmp_path / "cjk-absent.ttf", square)
    assert fonts.find_fonts([CHINESE])[1:] == (square,)


def test_without_a_font_letters_are_spelled_and_emoji_named(install):
    install()
    found = fonts.find_fonts([CHINESE, EMOJI])
    assert fonts.spell(f"2  {CHINESE} {EMOJI}", found) == "2  YuMi corn"


@pytest.mark.parametrize("has_font", [True, False])
def test_matplotlib_draws_names_of_any_script_without_a_word(install, tmp_path, capfd, has_font):
    install(*[make_font(tmp_path / "Square.ttf", CHINESE)][:has_font])
    figure = Figure(figsize=(3, 2))
    axes = figure.add_subplot()
    axes.set_title(f"$ {CHINESE} {ARABIC} {EMOJI}")
    axes.set_yticks([0, 1], [CHINESE, ARABIC])
    save_figure(figure, tmp_path / "figure.svg")  # a missing glyph warns, and a warning is an error here
    assert axes.get_yticklabels()[0].get_text() == (CHINESE if has_font else "YuMi")
    assert capfd.readouterr() == ("", "")


def draw_map(path: Path, name: str) -> np.ndarray:
    labels = np.ones((4, 4), dtype=np.int32)
    save_map(ClassMap(labels, {1: name}, {0: (0, 0, 0), 1: (9, 9, 9)}), path, title="")
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


def test_the_map_writes_a_name_with_the_font_that_has_it(install, tmp_path):
    square = make_font(tmp_path / "Square.ttf", f"1 {CHINESE}")
    install(square)
    written = draw_map(tmp_path / "map.png", CHINESE)
    install()
    spelled = draw_map(tmp_path / "spelled.png", CHINESE)
    assert np.array_equal(spelled, draw_map(tmp_path / "latin.png", "YuMi"))
    assert (written < 128).sum() > (spelled < 128).sum()  # squares are blacker than letters


def test_the_legend_of_a_hundred_classes_is_no_higher_than_the_map(tmp_path):
    labels = np.arange(100, dtype=np.int32).reshape(10, 10) + 1
    names = {label: f"class {label}" for label in range(1, 101)}
    palette = {label: (label, 2 * label, 50) for label in range(101)}
    save_map(ClassMap(labels, names, palette), tmp_path / "map.png", title="")
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.height < 850
        assert picture.width < 1500
