"""Two runs side by side: the paired numbers, both maps under one lens, and which classes gained."""

import numpy as np
import pytest
from safetensors.numpy import load_file

import hsi_se
from hsi_se.config.model import Svm
from hsi_se.config.yaml_file import load_config
from hsi_se.reports.explorer import RunFiles
from hsi_se.runs.folder import RunFolder
from tests.conftest import CPU, ROOT, TINY, quick_baselines
from tests.reports.reader import Reader, to_rgb


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> RunFolder:
    """Another classifier on the same split."""
    config = load_config(ROOT / "configs" / "demo.yaml", (*TINY, "model={name: lda}"))
    folder = hsi_se.train(config, out=tmp_path_factory.mktemp("runs") / "other", session=CPU)
    with quick_baselines(Svm(name="svm")):
        hsi_se.evaluate(folder)
    return folder


@pytest.fixture
def compared(browser, call, run, other, tmp_path):
    code, out, _ = call("report", run, other, "--out", tmp_path / "both.html")
    assert (code, out) == (0, f"report: {tmp_path / 'both.html'}\n")
    context = browser.new_context(viewport={"width": 1600, "height": 1000}, bypass_csp=True)
    reader = Reader(context.new_page())
    reader.page.goto((tmp_path / "both.html").as_uri())
    reader.page.wait_for_selector("html[data-ready]", state="attached")
    reader.settle()
    yield reader
    assert reader.complaints == []
    context.close()


def test_the_numbers_are_those_of_the_test_pixels_of_both(compared, run, other):
    one, two = (load_file(folder.predictions) for folder in (run, other))
    np.testing.assert_array_equal(one["pixels"], two["pixels"])
    right = [each["predicted"] == each["truth"] for each in (one, two)]
    difference = 100 * (right[1].mean() - right[0].mean())
    finding = compared.page.locator(".finding").inner_text()
    assert (
        f"other is {abs(difference):.1f} points {'above' if difference > 0 else 'below'} tiny; 95 % interval" in finding
        or f"No difference between other and tiny is shown: {difference:+.2f}".replace("-", "−") in finding
    )
    said = compared.page.locator("header p").nth(1).inner_text()
    assert f"On the {len(right[0]):,} test pixels of both runs, {(right[1] & ~right[0]).sum():,} are" in said
    assert f"by other only and {(right[0] & ~right[1]).sum():,} by tiny only" in said
    rows = compared.page.get_by_label("Table: which classes gained", exact=True).locator("tbody tr").all()
    cells = [row.locator("th, td").all_inner_texts() for row in rows]
    found = {line[1]: line[2:] for line in cells}
    for place, name in enumerate(run.read_facts().class_names):
        is_class = one["truth"] == run.read_facts().class_ids[place]
        shares = [100 * each[is_class].mean() for each in right]
        assert found[name] == [
            f"{is_class.sum():,}", *(f"{share:.2f}" for share in shares),
            f"{shares[1] - shares[0]:+.2f}".replace("-", "−"),
        ]  # fmt: skip
    gains = [float(line[-1].replace("−", "-")) for line in cells]
    assert gains == sorted(gains, reverse=True), "what gained most comes first"


def colours(reader: Reader, number: int, rows: int, cols: int) -> np.ndarray:
    data = reader.page.evaluate(
        """([number, rows, cols]) => {
          const canvas = document.querySelector(`[data-map="${number}"]`);
          const pen = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
          pen.drawImage(canvas, 0, 0);
          const image = pen.getImageData(0, 0, canvas.width, canvas.height);
          const out = [];
          for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) {
            const [x, y] = [(c + 0.5) * canvas.width / cols, (r + 0.5) * canvas.height / rows].map(Math.floor);
            out.push(...image.data.slice(4 * (y * canvas.width + x), 4 * (y * canvas.width + x) + 3));
          }
          return out;
        }""",
        [number, rows, cols],
    )
    return np.array(data).reshape(rows, cols, 3)


def test_both_maps_and_where_they_differ_are_under_one_lens(compared, run, other):
    files = [RunFiles.read(folder) for folder in (run, other)]
    truth, (one, two) = files[0].explorer.truth, [each.explorer.prediction for each in files]
    classes = np.array([(13, 16, 19), *(to_rgb(each.colour) for each in files[0].list_classes())])
    for number, places in enumerate((one, two)):
        np.testing.assert_array_equal(colours(compared, number, *truth.shape), classes[places])
    shown = colours(compared, 2, *truth.shape)
    differ = one != two
    for where, colour in (
        (~differ, (13, 16, 19)),
        (differ & (two == truth), to_rgb("#3f7fb5")),
        (differ & (one == truth), to_rgb("#ff8a3c")),
        (differ & (one != truth) & (two != truth), to_rgb("#b9b9b9")),
    ):
        assert (shown[where] == colour).all()
    page = compared.page
    box = page.locator("[data-map='1']").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 4.5 / 24, box["y"] + box["height"] * 7.5 / 24)
    compared.settle()
    names = files[0].facts.class_names
    label = "unlabelled" if not truth[7, 4] else names[truth[7, 4] - 1]
    both = f"{names[one[7, 4] - 1]} and {names[two[7, 4] - 1]}"
    assert compared.text("lens") == f"Row 7, column 4: truth {label}; {both}."
    page.mouse.move(5, 5)
    page.click("#zoom-in")
    page.click("#zoom-in")
    compared.settle()
    at = 12 - 24 / 1.5**2 / 2 + (np.arange(24) + 0.5) / 1.5**2  # the same part of both maps, round the middle
    is_clear = np.abs(at - np.rint(at)) > 0.1
    rows = at[is_clear].astype(int)
    for number, places in enumerate((one, two)):
        zoomed = colours(compared, number, 24, 24)[np.ix_(is_clear, is_clear)]
        np.testing.assert_array_equal(zoomed, classes[places][np.ix_(rows, rows)])


def test_axe_finds_nothing_on_the_page_of_two_runs(compared):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(compared.page).response["violations"]
    assert [(each["impact"], each["id"]) for each in found] == []


def test_by_default_the_page_lies_beside_the_runs(call, run, other):
    page = run.path.resolve().parent / "tiny-and-other.html"
    code, out, _ = call("report", run, other)
    assert (code, out) == (0, f"report: {page}\n")
    assert page.is_file()
    assert run.find_foreign() is None


def test_runs_that_cannot_be_compared_are_refused_in_one_line(call, run, other, placed, tmp_path):
    remedy = "compare two runs of one scene and split"
    code, _, err = call("report", run, placed)
    assert (code, err) == (2, f"hsi-se: {placed}: has another scene or other classes than {run}; {remedy}\n")
    code, _, err = call("report", run, other, "--figures", "svg")
    assert (code, err) == (2, "hsi-se: --figures svg: has no effect with several runs; leave it out\n")
    code, _, err = call("report", run, tmp_path / "none")
    assert (code, err.count("\n")) == (2, 1)
    assert "no such run folder" in err
