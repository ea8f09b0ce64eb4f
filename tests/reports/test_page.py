"""The page of a run in a headless Chromium: what it shows is what was measured, whatever drives it."""

import re
import shutil

import numpy as np
import pytest

import hsi_se
from hsi_se.config.yaml_file import load_config
from hsi_se.reports.explorer import RunFiles
from hsi_se.reports.finding import describe_finding
from hsi_se.reports.page import write_page
from hsi_se.reports.tables import hectares, percent
from hsi_se.runs.folder import RunFolder
from hsi_se.sampling.disjoint import Side
from hsi_se.scene.wavelengths import split_at_gaps
from tests.conftest import CPU, ROOT, TINY
from tests.reports.reader import LAYERS, LIT, Reader, find_first, find_wrong, read_curve, to_rgb


def test_the_page_opens_without_a_complaint_and_asks_for_nothing(reader, run):
    for layer in LAYERS:
        reader.page.click(f'[data-layer="{layer}"]')
    reader.page.locator("[data-predicted]").first.click()
    assert reader.complaints == []
    assert reader.requests == [run.page.resolve().as_uri()]


def test_the_first_screen_says_the_finding_and_what_it_stands_on(reader, run):
    report, page = run.read_report(), reader.page
    leaking = report.leakage.test_patches_with_train_pixels
    values = page.locator(".headline dd").all_inner_texts()
    names = page.locator(".headline dt").all_inner_texts()
    assert dict(zip(names, values, strict=True)) == {
        "OA": f"{100 * report.overall_accuracy:.2f} %",
        "AA": f"{100 * report.average_accuracy:.2f} %",
        "κ": f"{report.kappa:.4f}",
        "location floor": f"{100 * report.location_floor.overall_accuracy:.2f} %",
        "spectral baseline": f"{100 * report.spectral_baseline.overall_accuracy:.2f} %",
        "test patches with training pixels": f"{100 * leaking:.1f} %",
    }
    assert page.locator(".finding").inner_text() == describe_finding(report, run.read_config())
    assert page.locator(".verdict").inner_text() == report.verdict
    step = report.next_step.replace("CONFIG", str(run.config)).replace("`", "")
    assert page.locator(".next").inner_text() == f"Next: {step}."
    for each in (".finding", ".meter", ".headline", ".verdict", ".next", ".card"):
        box = page.locator(each).bounding_box()
        assert box["y"] + box["height"] < 700, f"{each} is on the first screen"
    size = "(each) => parseFloat(getComputedStyle(each).fontSize)"
    sizes = [page.locator(".headline dd").nth(place).evaluate(size) for place in range(6)]
    assert sizes[:3] == [max(sizes)] * 3
    assert max(sizes[3:]) < min(sizes[:3])
    assert page.locator(".finding").evaluate(size) >= 28


def test_one_bar_shows_network_baseline_and_floor_on_one_scale(reader, run):
    report, page = run.read_report(), reader.page
    bar = page.locator(".meter").bounding_box()
    reached = page.locator(".meter .reached").bounding_box()
    assert reached["width"] / bar["width"] == pytest.approx(report.overall_accuracy, abs=0.005)
    for name, found in (("baseline", report.spectral_baseline), ("floor", report.location_floor)):
        mark = page.locator(f".meter .of-{name}").bounding_box()
        middle = mark["x"] + mark["width"] / 2 - bar["x"]
        assert middle / bar["width"] == pytest.approx(found.overall_accuracy, abs=0.005)
        assert f"{100 * found.overall_accuracy:.2f} %" in page.locator(".meter").get_attribute("aria-label")


def test_a_card_says_what_was_run(reader, run):
    record, config = run.read_record(), run.read_config()
    rows = reader.page.locator(".card div").all()
    card = dict(tuple(each.inner_text() for each in row.locator("dt, dd").all()) for row in rows)
    assert card["network"] == f"hybridsn, {record.num_parameters:,} parameters"
    assert (
        card["attention"]
        == "se at fold, se at conv2d"
        == ", ".join(f"{block.kind} at {point}" for point, block in config.model.attention.items())
    )
    assert card["patch"] == "9 × 9 pixels"
    assert card["split"] == f"random: {record.num_train} training and {run.read_report().num_test} test pixels"
    assert card["scene"].startswith(f"{record.scene}, 24 × 24 pixels, 16 bands, ")
    assert card["seed"] == "0"
    assert card["trained"] == f"{run.read_progress()[0].started:%Y-%m-%d %H:%M} UTC"
    assert card["device"].startswith(f"{record.device}, {record.precision}, ")


def test_the_measures_are_explained_by_tap_and_by_keyboard(browser, run):
    context = browser.new_context(viewport={"width": 400, "height": 800}, has_touch=True)
    reader = Reader(context.new_page()).open(run)
    for name, said in (("OA", "Overall accuracy: "), ("AA", "Average accuracy: "), ("κ", "Cohen’s kappa: ")):
        button = reader.page.get_by_role("button", name=name, exact=True)
        about = reader.page.locator(f"#{button.get_attribute('aria-describedby')}")
        assert not about.is_visible()
        button.tap()
        assert about.inner_text().startswith(said)
        box = about.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400
        reader.press("Escape")
        assert not about.is_visible()
        button.focus()
        reader.press("Enter")
        assert about.is_visible()
        reader.press("Escape")
    assert reader.page.evaluate("document.documentElement.scrollWidth") == 400
    context.close()


def read_table(reader: Reader, name: str) -> list[list[str]]:
    table = reader.page.get_by_label(f"Table: {name}", exact=True).locator("tbody tr")
    return [row.locator("th, td").all_inner_texts() for row in table.all()]


def test_split_areas_and_validation_of_each_class_are_shown(browser, reader, run, placed):
    report, record = run.read_report(), run.read_record()
    counts = read_table(reader, "pixels of each class")
    assert counts == [
        [
            str(row.label),
            row.name,
            *(f"{count:,}" for count in (row.num_train, row.num_val, row.num_test, row.num_buffer)),
        ]
        for row in report.split_per_class
    ]
    best = next(epoch for epoch in record.history if epoch.epoch == record.best_epoch)
    shown = [row[4] for row in read_table(reader, "accuracy of each class")]
    assert shown == [percent(share) for share in best.validation_per_class]
    assert any(text != "–" for text in shown)
    assert len(read_table(reader, "area of each class")[0]) == 5, "the size of a pixel is unknown"

    other = Reader(browser.new_page()).open(placed)
    report = placed.read_report()
    assert report.pixel_area_m2 == 900
    for cells, row in zip(read_table(other, "area of each class"), report.area, strict=True):
        assert cells[2] == f"{row.mapped_pixels:,}"
        assert cells[6:] == [hectares(pixels * 0.09) for pixels in (row.adjusted_pixels, row.margin_95)]
    folds = read_table(other, "folds")
    assert [cells[5] for cells in folds] == [percent(accuracy) for accuracy in report.fold_accuracies]
    assert other.complaints == []
    other.page.close()


def test_explain_writes_the_page_again_with_the_gates_over_classes_and_wavelengths(browser, run, explained, tmp_path):
    copy = RunFolder(shutil.copytree(explained.path, tmp_path / "run"))
    assert copy.page.read_bytes() != run.page.read_bytes()
    explanation = copy.read_explanation()
    gate = next(gate for gate in explanation.gates if gate.spectrum)
    rows = np.linspace(0.2, 0.8, len(gate.spectrum.positions)) + 0.01 * np.arange(len(explanation.classes))[:, None]
    values = tuple(tuple(None if band == 3 else value for band, value in enumerate(row)) for row in rows.tolist())
    spectrum = gate.spectrum.model_copy(update={"mean_excitation": values})
    copy.write(
        copy.explanation, explanation.model_copy(update={"gates": (gate.model_copy(update={"spectrum": spectrum}),)})
    )
    write_page(copy)
    reader = Reader(browser.new_page()).open(copy)
    assert reader.page.locator(".gate").count() == 1
    chart = reader.page.locator("[data-gate]")
    assert chart.locator("path.of-class").count() == len(explanation.classes)
    assert reader.page.locator(".gate .lines li").count() == len(explanation.classes) + 1
    path = chart.locator("path.of-class").first.get_attribute("d")
    assert path.count("M") == 1 + len(split_at_gaps(np.array(spectrum.positions))), (
        "the line stops where there is no component"
    )
    drawn = np.array([[float(number) for number in point.split()] for point in re.split("[ML]", path)[1:]])
    kept = np.delete(np.arange(rows.shape[1]), 3)
    assert np.corrcoef(drawn[:, 0], np.array(spectrum.positions)[kept])[0, 1] == pytest.approx(1)
    assert np.corrcoef(drawn[:, 1], rows[0][kept])[0, 1] == pytest.approx(-1, abs=1e-6), "higher is further up"
    assert reader.complaints == []
    reader.page.close()


@pytest.fixture(scope="module")
def uncalibrated(tmp_path_factory) -> RunFolder:
    config = load_config(ROOT / "configs" / "demo.yaml", TINY)
    folder = hsi_se.train(config, out=tmp_path_factory.mktemp("runs") / "uncalibrated", session=CPU)
    hsi_se.evaluate(folder)
    return folder


def test_no_report_passes_certainty_off_as_calibrated_that_is_not(run, uncalibrated):
    for folder, is_scaled in ((run, True), (uncalibrated, False)):
        texts = [folder.page.read_text(), folder.report_text.read_text()]
        found = folder.read_report().calibration
        assert found.scaling.is_scaled == is_scaled
        for text in texts:
            assert found.about in text
            assert ("The confidence is not calibrated" in text) != is_scaled
            assert ("after temperature scaling" in text) == is_scaled
            assert ("prediction.calibration is none" in text) != is_scaled
        assert ("Softmax of the predicted class, not calibrated" in texts[0]) != is_scaled
        assert ("Not calibrated: these rank the classes but are not probabilities." in texts[0]) != is_scaled
        names = [name for name, _, _ in RunFiles.read(folder).list_reliability()]
        assert names[0] == ("as trained" if is_scaled else "as trained, not calibrated")
        assert len(names) == (2 if is_scaled else 1)


def test_hovering_a_pixel_shows_its_truth_prediction_and_probabilities(reader, files, scene):
    row, col = find_wrong(files)
    reader.hover(row, col)
    bundle = files.facts
    predicted = files.explorer.prediction[row, col] - 1
    assert reader.text("place") == f"row {row}, column {col}"
    label = scene.labels[row, col]
    assert reader.text("truth") == f"{label} {scene.class_names[label]}"
    assert reader.text("prediction") == f"{bundle.class_ids[predicted]} {bundle.class_names[predicted]}"
    assert reader.text("side") == "test"
    bars = reader.page.locator("#bars li").all_inner_texts()
    shares = files.explorer.top_probabilities[row, col] / 655.35
    for bar, place, share in zip(bars, files.explorer.top_classes[row, col] - 1, shares, strict=True):
        assert bundle.class_names[place] in bar
        assert float(re.search(r"([\d.]+) %", bar)[1]) == pytest.approx(share, abs=0.051)
    widths = [bar.bounding_box()["width"] for bar in reader.page.locator("#bars .bar").all()]
    full = reader.page.locator("#bars").bounding_box()["width"]
    np.testing.assert_allclose(np.array(widths) / full, np.maximum(shares / 100, 1 / full), atol=0.01)


def test_the_spectrum_drawn_is_the_pixels_beside_the_means_of_its_classes(reader, files, scene):
    row, col = find_wrong(files)
    reader.hover(row, col)
    for style, expected in (
        ("this", scene.cube[row, col]),
        ("series-1", scene.cube[scene.labels == scene.labels[row, col]].mean(axis=0)),
        ("series-2", files.explorer.class_means[files.explorer.prediction[row, col] - 1]),
    ):
        nm, values = read_curve(reader, style)
        np.testing.assert_allclose(nm, scene.wavelengths_nm, atol=0.05)
        np.testing.assert_allclose(values, expected, atol=0.002 * np.ptp(scene.cube[row, col]))


def test_each_layer_shows_its_colours(reader, files):
    explorer, shape = files.explorer, files.explorer.truth.shape
    classes = np.array([(0, 0, 0), *(to_rgb(each.colour) for each in files.list_classes())])
    labelled = explorer.truth > 0
    reader.page.mouse.move(0, 0)

    reader.page.click('[data-layer="picture"]')
    reader.settle()
    away = np.ones(shape, dtype=bool)
    away[find_first(files)] = False  # under the mark of the pixel that is kept
    np.testing.assert_array_equal(reader.colours(*shape)[away], explorer.picture[away])
    for layer, places, where in (("prediction", explorer.prediction, away), ("truth", explorer.truth, away & labelled)):
        reader.page.click(f'[data-layer="{layer}"]')
        reader.settle()
        np.testing.assert_array_equal(reader.colours(*shape)[where], classes[places][where])
    reader.page.click('[data-layer="errors"]')
    reader.settle()
    shown = reader.colours(*shape)
    is_right = explorer.truth == explorer.prediction
    assert len(np.unique(shown[labelled & away & is_right], axis=0)) == 1
    assert len(np.unique(shown[labelled & away & ~is_right], axis=0)) == 1
    reader.page.click('[data-layer="certainty"]')
    reader.settle()
    light = reader.colours(*shape)[away] @ [0.3, 0.59, 0.11]
    chances = explorer.top_probabilities[away][:, 0].astype(int)
    order = np.argsort(chances)
    assert (np.diff(light[order]) > -2).all(), "the surer, the brighter"
    reader.page.click('[data-layer="split"]')
    reader.settle()
    shown = reader.colours(*shape)
    for side in (Side.TRAIN, Side.TEST):
        assert len(np.unique(shown[away & (explorer.sides == side)], axis=0)) == 1


def test_blending_mixes_a_layer_with_the_one_below(reader, files):
    explorer = files.explorer
    reader.page.locator("#blend").fill("50")
    reader.settle()
    shown = reader.colours(*explorer.truth.shape)
    classes = np.array([(0, 0, 0), *(to_rgb(each.colour) for each in files.list_classes())])
    expected = (classes[explorer.prediction] + explorer.picture.astype(float)) / 2
    away = np.ones(explorer.truth.shape, dtype=bool)
    away[find_first(files)] = False
    np.testing.assert_allclose(shown[away], expected[away], atol=1)
    reader.page.select_option("#under", "prediction")
    assert reader.page.locator("#blend").is_disabled(), "a layer over itself has nothing to blend"


def test_every_cell_of_the_matrix_lights_as_many_pixels_as_it_counts(reader, files):
    explorer, confusion = files.explorer, files.report.evaluation.confusion
    cells = np.argwhere(confusion > 0)
    assert len(cells) > len(confusion)
    reader.page.mouse.move(0, 0)
    for truth, predicted in cells.tolist():
        button = f'[data-truth="{truth + 1}"][data-predicted="{predicted + 1}"]'
        reader.page.click(button)
        reader.settle()
        reader.press("Home")
        lit = (reader.colours(*explorer.truth.shape) == LIT).all(axis=2)
        expected = (explorer.sides == Side.TEST) & (explorer.truth == truth + 1)
        expected &= explorer.prediction == predicted + 1
        np.testing.assert_array_equal(lit, expected)
        assert lit.sum() == confusion[truth, predicted] == int(reader.page.inner_text(button))
        assert reader.text("lit").startswith(f"{lit.sum():,} test pixels of ")
    reader.page.click(button)
    assert not reader.page.locator("#lit").is_visible(), "a second click puts it out"


def test_a_class_in_the_legend_is_shown_alone(reader, files):
    explorer = files.explorer
    reader.page.click('.legend [data-class="2"]')
    reader.page.mouse.move(0, 0)
    reader.settle()
    shown = reader.colours(*explorer.truth.shape)
    colour = to_rgb(files.list_classes()[1].colour)
    np.testing.assert_array_equal((shown == colour).all(axis=2), explorer.prediction == 2)
    rest = shown[explorer.prediction != 2]
    assert (np.ptp(rest, axis=1) == 0).all(), "the rest is grey"
    assert reader.text("lit").startswith(f"{(explorer.prediction == 2).sum():,} pixels of ")
    reader.press("3")
    assert reader.text("lit").startswith(f"{(explorer.truth == 2).sum():,} pixels of ")
    reader.press("Escape")
    assert not reader.page.locator("#lit").is_visible()


def test_colours_of_the_labels_can_be_changed_for_those_that_colour_blind_readers_tell_apart(reader, run, tmp_path):
    assert not reader.page.locator("[data-palette]:not(html)").count(), "both are the same"
    run = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    facts = run.read_facts()
    red = facts.model_copy(update={"palette": {label: (200, label, 0) for label in facts.palette}})
    run.bundle_facts.write_text(red.model_dump_json())
    write_page(run)
    reader.open(run)
    files = RunFiles.read(run)
    explorer, classes = files.explorer, files.list_classes()
    away = np.ones(explorer.truth.shape, dtype=bool)
    away[find_first(files)] = False
    swatch = reader.page.locator(".legend .swatch").first
    for choice in ("distinct", "usual"):
        reader.page.click(f'button[data-palette="{choice}"]')
        reader.page.mouse.move(0, 0)
        reader.settle()
        wanted = [to_rgb(each.distinct if choice == "distinct" else each.colour) for each in classes]
        colours = np.array([(0, 0, 0), *wanted])
        np.testing.assert_array_equal(reader.colours(*explorer.truth.shape)[away], colours[explorer.prediction][away])
        shown = swatch.evaluate("(each) => getComputedStyle(each).backgroundColor")
        assert shown == "rgb({}, {}, {})".format(*wanted[0])
