"""The page of an ablation: its numbers are the record's, its figures can be read, links lead on."""

import re

import pytest

from hsi_se.ablation.figures import _draw_seeds
from hsi_se.ablation.record import (
    AblationFolder,
    AblationReport,
    AblationRun,
    Comparison,
    Part,
    SceneReport,
    VariantReport,
)
from hsi_se.ablation.summary import _summarize_all
from hsi_se.evaluation.statistics import McNemarTest, compare_correlated, summarize
from hsi_se.runs.report import Accuracies
from tests.conftest import CHROMIUM

BASE, GATED = (0.90, 0.92, 0.94), (0.95, 0.96, 0.97)
SENTENCE = "no difference <shown>: +4.00 points, 95 % interval; probabilities: better 97 %, equal 2 %, worse 1 %"


def make_run(variant: str, seed: int, accuracy: float, difference: float | None) -> AblationRun:
    return AblationRun(
        seed=seed,
        folder=f"runs/{variant}/seed-{seed}",
        config_digest="c",
        split_digest="s",
        precision="float32",
        num_test=1000,
        overall_accuracy=accuracy,
        average_accuracy=accuracy - 0.01,
        kappa=None if seed == 2 else accuracy - 0.02,
        unsmoothed=None,
        location_floor=Accuracies(overall_accuracy=0.88, average_accuracy=0.8, kappa=0.8),
        spectral_baseline=Accuracies(overall_accuracy=0.7, average_accuracy=0.6, kappa=0.6),
        outcomes={"location floor": "better", "spectral baseline": "better"},
        test_patches_with_train_pixels=0.25,
        producers_accuracy={7: accuracy},
        parts=(
            Part(num_train=250, num_test=1000, overall_accuracy=accuracy, location_floor=0.88, spectral_baseline=0.7),
        ),
        training_s=10 + seed,
        training_us_per_pixel=200.0,
        training_peak_bytes=None,
        mapping_s=1.5,
        mapping_us_per_pixel=30.0 if variant == "none" else 45.0,
        mapping_peak_bytes=None,
        difference=difference,
        mcnemar=None if difference is None else McNemarTest(only_baseline=11, only_variant=51, p=1e-6),
    )


def make_variant(name: str, accuracies: tuple[float, ...], comparison: Comparison | None) -> VariantReport:
    runs = tuple(
        make_run(name, seed, accuracy, None if comparison is None else accuracy - BASE[seed])
        for seed, accuracy in enumerate(accuracies)
    )
    return VariantReport(
        name=name,
        settings={} if comparison is None else {"model.attention": {"fold": {"kind": "se"}}},
        num_parameters=126_441,
        macs_per_patch=1_400_000 if comparison is None else 1_900_000,
        runs=runs,
        summaries=_summarize_all(runs),
        producers_accuracy={7: summarize(accuracies)},
        comparison=comparison,
        against={},
    )


@pytest.fixture
def folder(tmp_path) -> AblationFolder:
    difference = summarize([b - a for a, b in zip(BASE, GATED, strict=True)])
    comparison = Comparison(
        difference=difference, rank_sum=0, p=0.25, p_holm=0.25, effect_size=4.0,
        rank_biserial=1.0, is_shown=False, sentence=SENTENCE,
        corrected=compare_correlated([0.05, 0.04, 0.03], correlation=0.8),
    )  # fmt: skip
    variants = (make_variant("none", BASE, None), make_variant("fold <se>", GATED, comparison))
    scene = SceneReport(
        name="plain", num_splits=1, class_names={7: "oats <7>"}, variants=variants, notes=("One split.",)
    )
    report = AblationReport(
        name="gates", digest="d" * 64, baseline="none", seeds=(0, 1, 2), threads=1, scenes=(scene,),
        friedman=None, no_friedman="One scene is too few.", caveats=("Three seeds are few.",),
        failed=(), num_missing=2,
    )  # fmt: skip
    folder = AblationFolder(tmp_path / "gates & more")
    folder.path.mkdir()
    folder.write(folder.report, report)
    page = folder.path / "runs" / "fold <se>" / "seed-1" / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("<title>one run</title>")
    return folder


def test_an_ablation_has_a_page_with_all_that_its_record_says(folder, call):
    code, out, _ = call("report", folder)
    assert (code, out) == (0, f"report: {folder.page}\n")
    text = folder.page.read_text()
    for part in (
        "fold &lt;se&gt;", "no difference &lt;shown&gt;<", ">probabilities: better 97 %, equal 2 %, worse 1 %<",
        "92.00 ± 2.00", "96.00 ± 1.00",
        "+4.00 [", "0.25", "126,441", "1.9", "45.0 ± 0.0", "Three seeds are few.", "One scene is too few.",
        "2 runs are still missing", "model.attention: {fold: {kind: se}}", "One split.",
    ):  # fmt: skip
        assert part in text, part
    assert "<se>" not in text
    assert not re.search(r'(src|href)="(?!#|runs/)', text), "nothing from elsewhere"


def test_a_reference_that_differs_between_variants_is_drawn_and_named_for_each(folder):
    (scene,) = folder.read_report().scenes
    none, gated = scene.variants
    own = Accuracies(overall_accuracy=0.8, average_accuracy=0.7, kappa=0.7)
    runs = tuple(run.model_copy(update={"location_floor": own}) for run in gated.runs)
    differing = scene.model_copy(update={"variants": (none, gated.model_copy(update={"runs": runs}))})
    for each, words, places in (
        (scene, "location floor 88.00 %, dashed", [88, 88]),
        (differing, "location floor 80.00 to 88.00 %, dashed", [88, 80]),
    ):
        (axes,) = _draw_seeds([each], "none").axes
        assert words in axes.get_title()
        drawn = [line.get_xdata() for line in axes.lines if "location floor" in (line.get_gid() or "")]
        assert drawn == [pytest.approx([place, place]) for place in places]


def test_figures_are_written_on_request_and_then_linked(folder, call):
    code, out, _ = call("report", folder)
    assert (code, folder.figures.exists()) == (0, False)
    assert "](figures/" not in folder.report_text.read_text()
    code, out, _ = call("report", folder, "--figures", "svg")
    assert code == 0
    paths = [folder.figures / f"{name}.svg" for name in ("seeds", "cost", "pairs")]
    assert out == "".join(f"figure: {path}\n" for path in paths) + f"report: {folder.page}\n"
    assert all(path.is_file() for path in paths)
    links = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", folder.report_text.read_text())
    assert sorted(links) == ["figures/cost.svg", "figures/pairs.svg", "figures/seeds.svg"]
    code, out, err = call("report", folder, "--figures", "gif")
    assert (code, out) == (2, "")
    assert err == "hsi-se: --figures gif: choose from png, pdf, svg\n"


def test_an_unfinished_ablation_is_one_line(tmp_path, call):
    (tmp_path / "plan.json").write_text("{}")
    code, _, err = call("report", tmp_path)
    assert code == 2
    assert err == f"hsi-se: {tmp_path}: no ablation in here; `hsi-se ablate` prints the path it writes\n"


@pytest.fixture
def page(browser, folder, call):
    assert CHROMIUM
    call("report", folder)
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(folder.page.as_uri())
    yield page
    assert page.complaints == []
    context.close()


def test_the_figures_are_in_the_page_with_their_words_as_text(page):
    drawn = page.locator("figure.drawn svg")
    labels = drawn.evaluate_all("(all) => all.map((each) => each.getAttribute('aria-label'))")
    assert [label.partition(" ")[0] for label in labels] == ["OA", "Mean", "OA"]
    words = " ".join(drawn.nth(0).locator("text").all_text_contents())
    for part in ("none", "fold <se>", "n = 3", "OA, %", "location floor 88.00 %", "spectral baseline 70.00 %"):
        assert part in words
    identifiers = page.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
    markers = [name for name in identifiers if re.fullmatch(r"[mp][0-9a-f]{10}", name)]
    assert len(set(markers)) == len(markers), "each figure's markers are its own"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_figures_are_dark_on_white(page, scheme):
    page.emulate_media(color_scheme=scheme)
    ground, ink = page.locator(".sheet").first.evaluate(
        "(sheet) => [sheet, sheet.querySelector('text')].map((each, n) => "
        "getComputedStyle(each)[n ? 'fill' : 'backgroundColor'])"
    )
    assert (ground, ink) == ("rgb(255, 255, 255)", "rgb(0, 0, 0)")


def test_the_answers_come_first_and_what_limits_them_is_behind_one_fold_out(page):
    answer = page.locator("header .answers li")
    (words,) = answer.all_inner_texts()
    for part in ("fold <se>", "+4.00 points [+1.52, +6.48]", "no difference <shown>", "probabilities: better"):
        assert part in words
    fold_outs = page.locator("header details")
    assert fold_outs.count() == 1
    for caveat in ("Three seeds are few.", "One split."):
        assert page.get_by_text(caveat).count() == 1
        assert not page.get_by_text(caveat).is_visible()
    assert answer.bounding_box()["y"] < fold_outs.bounding_box()["y"]
    fold_outs.locator("summary").click()
    for caveat in ("Three seeds are few.", "One split."):
        assert page.get_by_text(caveat).is_visible()


def test_variants_that_do_not_clear_the_floor_are_listed_once(folder, call):
    report = folder.read_report()
    (scene,) = report.scenes
    for runs, said in (({}, None), ({1: (0, 2)}, "fold &lt;se&gt; (2 of 3 runs)"), (
        {0: (1,), 1: (0, 1, 2)}, "none (1 of 3 runs), fold &lt;se&gt; (3 of 3 runs)"
    )):  # fmt: skip
        variants = []
        for place, variant in enumerate(scene.variants):
            found = [
                run.model_copy(update={"outcomes": {**run.outcomes, "location floor": "no difference shown"}})
                if run.seed in runs.get(place, ())
                else run
                for run in variant.runs
            ]
            variants.append(variant.model_copy(update={"runs": tuple(found)}))
        changed = scene.model_copy(update={"variants": tuple(variants)})
        folder.write(folder.report, report.model_copy(update={"scenes": (changed,)}))
        call("report", folder)
        lines = re.findall(r"Does not clear the location floor: (.*)\.</p>", folder.page.read_text())
        assert lines == ([] if said is None else [said])


def test_a_click_on_a_variant_opens_its_runs_and_a_run_its_page(page):
    assert page.locator("details[open]").count() == 0
    page.locator(".sortable th a").nth(1).click()
    opened = page.locator("details[open]")
    assert opened.count() == 1
    assert "fold <se>" in opened.locator("summary").inner_text()
    rows = opened.locator("tbody tr")
    assert rows.count() == 3
    assert rows.nth(0).inner_text().split("\t")[:2] == ["0", "95.00"]
    rows.locator("a").click()
    page.wait_for_url("**/seed-1/report.html")
    assert page.title() == "one run"
    page.go_back()
    page.locator(".sortable th a", has_text="none").click()
    assert page.locator("details[open] summary", has_text="none").count() == 1


@pytest.mark.parametrize("width", [360, 400, 1280, 1600])
def test_the_page_of_an_ablation_fits_its_window(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for figure in page.locator(".sheet").all():
        box = figure.bounding_box()
        assert box["width"] > 280
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width
    sizes = page.locator("figure.drawn text").evaluate_all(
        "(all) => all.map((each) => each.getBoundingClientRect().height)"
    )
    assert min(sizes) > 9, "pixels"
