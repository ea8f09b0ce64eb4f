"""The page of a run can be read by everybody, at any width, in light and dark, and on paper."""

import re

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from hsi_se.reports.explorer import RunFiles
from hsi_se.runs.folder import RunFolder
from tests.reports.reader import Reader

SIZES = ((1600, 1000), (360, 740))
SCHEMES = ("light", "dark")


CONTRASTS = """() => {
  const luminance = ([r, g, b]) => {
    const linear = (v) => (v <= 10 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  };
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const parse = (colour) => {  // whatever way CSS writes it
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return parse("white");
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility()) continue;
    if (element.closest("script, style, canvas, .unseen, :disabled")) continue;
    const style = getComputedStyle(element);
    const colour = parse(element.closest("svg") ? style.fill : style.color);
    const [light, dark] = [luminance(colour), luminance(ground(element))].sort((a, b) => b - a);
    found.push([(light + 0.05) / (dark + 0.05), text.slice(0, 40)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_page_reads_well_at_both_widths_in_light_and_dark(browser, run, tmp_path, width, height, scheme):
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    reader = Reader(context.new_page()).open(run)
    page = reader.page
    assert page.evaluate("document.documentElement.scrollWidth") == width, "nothing sticks out"
    page.locator("details summary").click()
    page.click('.legend [data-class="1"]')
    page.locator("[data-predicted]").first.click()
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 100
    assert min(contrasts) >= [4.5], min(contrasts)
    for element in ("#map", "#readout", ".legend", ".scroll", "figure.spectrum"):
        box = page.locator(element).first.bounding_box()
        assert box["width"] > 250, element
        assert box["x"] >= 0, element
    small = [
        button.inner_text()
        for button in page.locator("[data-layer], .legend button, .zoom button").all()
        if button.bounding_box()["height"] < 24
    ]
    assert small == [], "a finger hits it"
    sizes = page.locator(".finding, .headline dd").evaluate_all(
        "(all) => all.map((each) => parseFloat(getComputedStyle(each).fontSize))"
    )
    assert min(sizes) >= 20
    assert sizes[0] >= (22 if width < 400 else 32)
    picture = page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert len(picture) > 50_000
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 384) == (scheme == "light")
    context.close()


def test_everything_one_can_use_has_a_name_for_a_screen_reader(reader):
    nameless = reader.page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, canvas, [tabindex], svg[role], table")]
          .filter((each) => !(each.getAttribute("aria-label") || each.getAttribute("aria-labelledby")
            || each.labels?.length || each.textContent.trim()))
          .map((each) => each.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    tree = reader.page.locator("body").aria_snapshot()
    for line in (
        'heading "Confusion matrix"', 'application "Map of', 'slider "Blend', 'group "Layer"', 'status',
        'region "Pixel', 'img "Reliability: as trained from', 'combobox "over',
    ):  # fmt: skip
        assert line in tree, line
    assert reader.page.locator("h1").count() == 1
    assert reader.page.locator("html").get_attribute("lang") == "en"


def test_the_tab_key_reaches_the_map_and_shows_where_it_is(reader):
    reader.page.keyboard.press("Tab")
    assert reader.page.evaluate("document.activeElement.textContent") == "To the map"
    for _ in range(18):  # past the six terms at the top and the tools of the map
        reader.page.keyboard.press("Tab")
        style = reader.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid"
        if reader.page.evaluate("document.activeElement.id") == "map":
            return
    pytest.fail("the map is not among the first stops")


def test_printed_the_page_is_black_on_white_without_controls(reader, tmp_path):
    reader.page.emulate_media(media="print", color_scheme="dark")
    reader.settle()
    assert reader.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not reader.page.locator(".zoom").is_visible()
    assert reader.page.locator("#map").is_visible()
    assert reader.page.locator(".confusion").is_visible()
    assert min(reader.page.evaluate(CONTRASTS)) >= [4.5]
    reader.page.pdf(path=tmp_path / "page.pdf", format="A4", print_background=True)
    assert (tmp_path / "page.pdf").stat().st_size > 30_000


def test_hostile_names_stay_text_in_the_browser(browser, run, tmp_path):
    text = run.page.read_text()
    evil = "<img src=x onerror=document.title=1>"
    (tmp_path / "evil").mkdir()
    copy = RunFolder(tmp_path / "evil")
    name = run.read_facts().class_names[0]
    copy.page.write_text(
        text.replace(f'"name": "{name}"', '"name": "' + evil.replace("<", "\\u003c") + '"').replace(
            f">{name}<", f">{evil.replace('<', '&lt;')}<"
        )
    )
    context = browser.new_context()
    reader = Reader(context.new_page()).open(copy)
    truth = RunFiles.read(run).explorer.truth
    row, col = np.argwhere(truth == 1)[0]
    reader.page.locator("#map").scroll_into_view_if_needed()
    reader.hover(row, col)
    assert evil in reader.text("truth")
    assert reader.page.locator("img").count() == 0
    assert reader.page.title() == f"{run.read_record().name} on {run.read_record().scene}"
    context.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [1600, 400])
def test_axe_finds_no_serious_violation(browser, run, placed, width, scheme):
    for folder in (run, placed):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
        page = Reader(context.new_page()).open(folder).page
        page.locator("details summary").click()
        found = Axe().run(page).response["violations"]
        assert [(each["impact"], each["id"], each["nodes"][0]["html"]) for each in found] == []
        context.close()


def test_at_400_pixels_tables_say_that_they_scroll_and_keep_their_first_column(browser, placed):
    context = browser.new_context(viewport={"width": 400, "height": 800})
    page = Reader(context.new_page()).open(placed).page
    names = ("confusion matrix", "accuracy of each class", "area of each class", "folds", "pixels of each class")
    for name in names:
        region = page.get_by_label(f"Table: {name}", exact=True)
        wide = region.evaluate("(each) => each.scrollWidth > each.clientWidth + 1")
        hint = region.locator("xpath=preceding-sibling::p[1]")
        assert hint.is_visible() == wide, name
        assert ("cut" in region.get_attribute("class")) == wide
        head = region.locator("tbody th").first
        region.evaluate("(each) => { each.scrollLeft = 9999; }")
        page.wait_for_timeout(50)
        box, frame = head.bounding_box(), region.bounding_box()
        assert frame["x"] - 1 <= box["x"] <= frame["x"] + 80, f"{name}: the first column stays"
        assert "cut" not in region.get_attribute("class"), "at the end nothing more is promised"
    assert (
        page.get_by_label("Table: area of each class", exact=True).locator("xpath=preceding-sibling::p[1]").is_visible()
    )
    context.close()


def test_charts_use_the_width_and_their_ticks_have_one_size(reader):
    size = """(all) => all.map((each) => each.getBoundingClientRect().height)"""
    drawn = reader.page.locator(".drawn svg")
    widths = [svg.bounding_box()["width"] for svg in drawn.all()]
    assert len(widths) == 3
    assert max(widths) - min(widths) < 2
    boxes = [figure.bounding_box() for figure in reader.page.locator(".drawn").all()]
    assert boxes[0]["x"] < 40
    assert boxes[-1]["x"] + boxes[-1]["width"] > 1560
    ticks = reader.page.locator("#spectrum text").evaluate_all(size)
    assert max(ticks) - min(ticks) < 0.5
    frame = reader.page.locator("figure.spectrum").bounding_box()
    assert reader.page.locator("#spectrum").bounding_box()["width"] == pytest.approx(frame["width"], abs=1)


def test_captions_and_statements_are_body_text(reader):
    style = "(each) => { const found = getComputedStyle(each); return [found.color, found.fontSize]; }"
    body = reader.page.locator("body").evaluate(style)
    for caption in reader.page.locator(".drawn figcaption").all():
        assert caption.evaluate(style) == body
    said = reader.page.locator("main p.hint").all_inner_texts()
    assert said == [reader.text("keys")], "the only small print is how to use the map"
