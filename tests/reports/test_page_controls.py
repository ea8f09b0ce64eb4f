"""Keys, mouse, fingers, addresses and downloads of the page of a run."""

import csv
import io
import shutil

import matplotlib.image
import numpy as np
import pytest
from rasterio.warp import transform
from safetensors.numpy import load_file

from hsi_se.reports.page import write_page
from hsi_se.runs.folder import RunFolder
from tests.reports.conftest import GRID
from tests.reports.reader import LAYERS, Reader, find_first


def test_keys_move_zoom_choose_and_clear(reader, files, scene):
    rows, cols = scene.shape
    row, col = find_first(files)
    page = reader.page
    page.focus("#map")
    assert reader.text("place") == f"row {row}, column {col}"
    reader.press("ArrowDown", "ArrowRight")
    row, col = min(row + 1, rows - 1), min(col + 1, cols - 1)
    assert reader.text("place") == f"row {row}, column {col}"
    said = page.locator("#said").inner_text()
    label, explorer = scene.labels[row, col], files.explorer
    truth = "unlabelled" if label == 0 else f"{label} {scene.class_names[label]}"
    name = files.facts.class_names[explorer.prediction[row, col] - 1]
    assert said.startswith(f"Row {row}, column {col}: truth {truth}, predicted ")
    assert name in said
    reader.press("Shift+ArrowUp", "Shift+ArrowUp", "Shift+ArrowUp", *["Shift+ArrowLeft"] * 3)
    assert reader.text("place") == "row 0, column 0"
    reader.press("ArrowUp")
    assert reader.text("place") == "row 0, column 0", "the edge holds"

    whole = reader.view()
    reader.press("+", "+")
    assert reader.view()[2] == pytest.approx(whole[2] * 1.5**2)
    reader.press("-")
    assert reader.view()[2] == pytest.approx(whole[2] * 1.5)
    reader.press("0")
    assert reader.view() == pytest.approx(whole)
    for number, layer in enumerate(LAYERS, start=1):
        reader.press(str(number))
        pressed = page.locator('[data-layer][aria-pressed="true"]')
        assert pressed.get_attribute("data-layer") == layer
    page.locator("[data-predicted]").first.click()
    assert page.locator("#lit").is_visible()
    reader.press("Escape")
    assert not page.locator("#lit").is_visible()
    assert page.locator("[data-predicted][aria-pressed=true]").count() == 0


def test_a_pixel_moved_by_keys_stays_in_sight(reader, scene):
    reader.page.focus("#map")
    reader.press(*["+"] * 6, *["Shift+ArrowRight"] * 5, *["Shift+ArrowDown"] * 5)
    x, y = reader.screen(scene.shape[0] - 1, scene.shape[1] - 1)
    box = reader.page.locator("#map").bounding_box()
    assert box["x"] < x < box["x"] + box["width"]
    assert box["y"] < y < box["y"] + box["height"]


def test_the_mouse_zooms_at_its_place_pans_and_keeps_a_pixel(reader):
    reader.hover(8, 9)
    box = reader.page.locator("#map").bounding_box()  # after the page has scrolled to the map
    before, scale = reader.screen(8, 9), reader.view()[2]
    reader.page.keyboard.down("Control")
    reader.page.mouse.wheel(0, -500)
    reader.page.keyboard.up("Control")
    reader.settle()
    assert reader.view()[2] > 2 * scale
    np.testing.assert_allclose(reader.screen(8, 9), before, atol=1)
    reader.page.mouse.down()
    reader.page.mouse.move(before[0] + 40, before[1] - 30, steps=5)
    reader.page.mouse.up()
    reader.settle()
    np.testing.assert_allclose(reader.screen(8, 9), np.add(before, (40, -30)), atol=4)
    reader.page.mouse.click(*reader.screen(8, 9))
    reader.page.mouse.move(box["x"] + 5, box["y"] - 20)
    reader.settle()
    assert reader.text("place") == "row 8, column 9", "a click keeps the pixel when the pointer leaves"


def test_two_fingers_zoom_and_one_pans_and_taps(browser, run):
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    reader = Reader(context.new_page()).open(run)
    reader.page.locator("#map").scroll_into_view_if_needed()
    touch = context.new_cdp_session(reader.page)

    def send(kind: str, *points: tuple[float, float]) -> None:
        at = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    x, y = reader.screen(12, 12)
    scale = reader.view()[2]
    send("touchStart", (x - 20, y))
    send("touchStart", (x - 20, y), (x + 20, y))
    for spread in range(20, 61, 5):
        send("touchMove", (x - spread, y), (x + spread, y))
    send("touchEnd")
    reader.settle()
    assert reader.view()[2] == pytest.approx(3 * scale, rel=0.1)
    np.testing.assert_allclose(reader.screen(12, 12), (x, y), atol=8)  # the map stays in its frame
    send("touchStart", (x, y))
    for shift in range(0, 41, 5):
        send("touchMove", (x + shift, y + shift))
    send("touchEnd")
    reader.settle()
    np.testing.assert_allclose(reader.screen(12, 12), (x + 40, y + 40), atol=6)
    reader.page.touchscreen.tap(*reader.screen(12, 12))
    assert reader.text("place") == "row 12, column 12"
    assert reader.page.locator("#said").inner_text().startswith("Row 12, column 12: ")
    context.close()


def test_a_table_is_sorted_by_the_column_that_is_clicked(reader, files):
    table = reader.page.get_by_label("Table: accuracy of each class", exact=True).locator(".sortable")
    supports = files.report.evaluation.support.tolist()

    def column(number: int) -> list[str]:
        return table.locator(f"tbody tr > :nth-child({number})").all_inner_texts()

    table.locator("th button", has_text="test").click()
    assert [int(text.replace(",", "")) for text in column(4)] == sorted(supports)
    table.locator("th button", has_text="test").click()
    assert [int(text.replace(",", "")) for text in column(4)] == sorted(supports, reverse=True)
    assert table.locator('th[aria-sort="descending"]').inner_text().startswith("test")
    table.locator("th button", has_text="class").click()
    assert column(2) == sorted(files.report.evaluation.class_names)


def test_the_wheel_scrolls_the_page_and_says_how_to_zoom(reader):
    reader.hover(8, 9)
    before, top = reader.view(), reader.page.evaluate("scrollY")
    assert not reader.page.locator("#wheel").is_visible()
    reader.page.mouse.wheel(0, 300)
    reader.wait(lambda: reader.page.evaluate("scrollY") > top + 200)
    assert reader.view() == before
    assert reader.text("wheel") == "Hold Ctrl and scroll to zoom the map"
    reader.page.wait_for_selector("#wheel", state="hidden")


def test_number_keys_work_where_the_pointer_is_over_the_map(reader):
    pressed = reader.page.locator('[data-layer][aria-pressed="true"]')
    reader.page.mouse.move(5, 5)
    reader.press("3")
    assert pressed.get_attribute("data-layer") == "prediction", "neither over the map nor with the focus"
    reader.hover(8, 9)
    assert reader.page.evaluate("document.activeElement.tagName") == "BODY"
    for number, layer in enumerate(LAYERS, start=1):
        reader.press(str(number))
        assert pressed.get_attribute("data-layer") == layer


def test_number_keys_work_over_the_map_also_with_the_focus_in_a_list(reader):
    pressed = reader.page.locator('[data-layer][aria-pressed="true"]')
    reader.page.locator("#under").focus()
    reader.press("3")
    assert pressed.get_attribute("data-layer") == "prediction"
    reader.hover(8, 9)
    reader.press("3")
    assert pressed.get_attribute("data-layer") == LAYERS[2]


def test_the_label_under_the_pointer_is_beside_it(reader, files, scene):
    row, col = find_first(files)
    name = files.facts.class_names[files.explorer.prediction[row, col] - 1]
    reader.hover(row, col)
    label = scene.labels[row, col]
    assert reader.text("tip").startswith(f"{label} {scene.class_names[label]}; predicted ")
    assert reader.text("tip").endswith(name)
    (x, y), box = reader.screen(row, col), reader.page.locator("#tip").bounding_box()
    assert max(box["x"] - x, x - box["x"] - box["width"]) < 40
    assert max(box["y"] - y, y - box["y"] - box["height"]) < 60
    reader.page.mouse.move(5, 5)
    reader.settle()
    assert not reader.page.locator("#tip").is_visible()


def test_the_address_keeps_layer_pixel_and_zoom(reader, browser, run):
    page = reader.page
    page.focus("#map")
    reader.press("4", "ArrowDown", "+", "+", "+", "Shift+ArrowRight")
    reader.wait(lambda: "zoom=3.375" in page.url)
    kept, place, view = page.url, reader.text("place"), reader.view()
    other = Reader(browser.new_page(viewport={"width": 1600, "height": 1000}))
    other.page.goto(kept)
    other.page.wait_for_selector("html[data-ready]", state="attached")
    other.settle()
    assert other.page.locator('[data-layer][aria-pressed="true"]').get_attribute("data-layer") == "errors"
    assert other.text("place") == place
    np.testing.assert_allclose(other.view(), view, rtol=0.01, atol=2)
    other.page.goto("about:blank")
    other.page.goto(f"{run.page.resolve().as_uri()}#layer=none&pixel=99,1&zoom=x")
    other.page.wait_for_selector("html[data-ready]", state="attached")
    assert other.page.locator('[data-layer][aria-pressed="true"]').get_attribute("data-layer") == "prediction"
    assert other.complaints == []
    other.page.close()


def test_the_map_and_the_tables_and_the_figures_can_be_saved(reader, files, tmp_path):
    def save(button) -> bytes:
        with reader.page.expect_download() as download:
            button.click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path.read_bytes()

    picture = matplotlib.image.imread(io.BytesIO(save(reader.page.locator("#save-map"))))[..., :3]
    rows, cols = files.explorer.truth.shape
    times = picture.shape[0] // rows
    assert picture.shape[:2] == (times * rows, times * cols)
    colours = np.array([tuple(int(each.colour[i : i + 2], 16) for i in (1, 3, 5)) for each in files.list_classes()])
    middles = np.rint(255 * picture[times // 2 :: times, times // 2 :: times])
    np.testing.assert_array_equal(middles, colours[files.explorer.prediction - 1])
    assert (tmp_path / f"{files.folder.path.name}-prediction.png").is_file()

    text = save(reader.page.get_by_label("CSV: Table: accuracy of each class")).decode("utf-8-sig")
    header, *lines = csv.reader(io.StringIO(text))
    assert header[:2] == ["label", "class"]
    expected = [[str(row.label), row.name, f"{row.support:,}"] for row in files.report.per_class]
    assert [[line[0], line[1], line[header.index("test")]] for line in lines] == expected
    row = reader.page.get_by_role("region", name="Table: accuracy of each class").locator("tbody tr").first
    row.evaluate("row => { row.cells[1].textContent = '=1+1'; }")
    text = save(reader.page.get_by_label("CSV: Table: accuracy of each class")).decode("utf-8-sig")
    assert [*csv.reader(io.StringIO(text))][1][1] == "'=1+1", "a spreadsheet would compute it"
    assert save(reader.page.get_by_label("SVG: Reliability")).startswith(b"<svg")
    reader.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    reader.page.get_by_label("Copy table: Table: confusion matrix").click()
    copied = reader.page.evaluate("navigator.clipboard.readText()").split("\n")
    counts = [[int(cell or 0) for cell in line.split("\t")[1:]] for line in copied[1:]]
    assert counts == files.report.evaluation.confusion.tolist()


def test_a_geotiff_is_linked_where_there_is_one_and_else_its_command_is_named(run, tmp_path):
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    write_page(copy)
    assert f"<code>hsi-se map {copy}</code>" in copy.page.read_text()
    (copy.path / "map").mkdir()
    (copy.path / "map" / "map.tif").write_bytes(b"")
    write_page(copy)
    assert '<a href="map/map.tif" download>GeoTIFF</a>' in copy.page.read_text()


@pytest.fixture(scope="module")
def ground(browser, placed):
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    yield Reader(page).open(placed)
    page.close()


def test_a_pixel_has_its_coordinates_where_the_scene_has_its_place(ground, reader):
    for row, col in ((0, 0), (12, 17), (23, 35)):
        ground.hover(row, col)
        x, y = GRID @ (col + 0.5, row + 0.5)
        (longitude,), (latitude,) = transform("EPSG:32633", "EPSG:4326", [x], [y])
        assert (ground.text("x"), ground.text("y")) == (f"{x:,.1f}", f"{y:,.1f}")
        assert float(ground.text("latitude")) == pytest.approx(latitude, abs=2e-6)
        assert float(ground.text("longitude")) == pytest.approx(longitude, abs=2e-6)
    names = ground.page.locator("#readout .where dt").all_inner_texts()
    assert names == ["easting, m", "northing, m", "latitude, °", "longitude, °"]
    assert not reader.page.locator("#x").is_visible()
    assert not reader.page.locator("#bar").is_visible()


def test_the_scale_bar_is_as_long_as_it_says_at_any_zoom(ground):
    for _ in range(3):
        length = float(ground.text("bar").removesuffix(" m"))
        width = ground.page.locator("#bar").bounding_box()["width"]
        assert width / ground.view()[2] * 30 == pytest.approx(length, rel=0.01)
        ground.page.click("#zoom-in")
        ground.settle()
    ground.page.click("#zoom-fit")


def test_the_frame_has_the_proportions_of_the_scene(ground, reader):
    for each, (rows, cols) in ((ground, (24, 36)), (reader, (24, 24))):
        box = each.page.locator("#map").bounding_box()
        frame = each.page.locator(".frame").bounding_box()
        assert box["width"] / box["height"] == pytest.approx(cols / rows, rel=0.01)
        assert (frame["width"], frame["height"]) == pytest.approx((box["width"], box["height"]), abs=1)
        each.page.click("#zoom-fit")
        each.settle()
        x, y, scale = each.view()
        assert (x, y) == pytest.approx((0, 0), abs=1)
        assert (cols * scale, rows * scale) == pytest.approx((box["width"], box["height"]), abs=1)
        left, right = (each.page.locator(".explore > div").nth(place).bounding_box() for place in (0, 1))
        ends = each.page.locator(".explore > div > :last-child").all()
        bottoms = [box["y"] + box["height"] for box in (end.bounding_box() for end in ends)]
        assert abs(bottoms[0] - bottoms[1]) < 600, "the columns end near each other"
        assert left["y"] == right["y"]


def test_a_layer_shows_where_the_folds_disagree(ground, placed, reader):
    predictions = np.stack([load_file(fold.explorer)["prediction"] for fold in placed.folds])
    pooled = load_file(placed.explorer)
    expected = (predictions != pooled["prediction"]).sum(axis=0)
    assert expected.max() == 2
    np.testing.assert_array_equal(pooled["disagreement"], expected)
    ground.page.click('[data-layer="disagreement"]')
    ground.page.mouse.move(5, 5)
    ground.settle()
    light = ground.colours(24, 36) @ [0.3, 0.59, 0.11]
    away = np.ones((24, 36), dtype=bool)
    away[tuple(map(int, ground.text("place").replace("row ", "").split(", column ")))] = False
    means = [light[away & (expected == count)] for count in range(3)]
    assert [np.ptp(values) for values in means] == [0, 0, 0]
    assert means[0][0] < means[1][0] < means[2][0]
    assert not reader.page.locator('[data-layer="disagreement"]').count(), "a single run has none"
