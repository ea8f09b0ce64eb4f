"""Somebody who reads a page in a headless Chromium, for the tests of what it shows and does."""

import re
from collections.abc import Callable

import numpy as np

from hsi_se.reports.explorer import RunFiles
from hsi_se.runs.folder import RunFolder
from hsi_se.sampling.disjoint import Side

LAYERS = ("picture", "prediction", "truth", "errors", "certainty", "split")
LIT = (255, 220, 0)


class Reader:
    """Somebody with the page before them."""

    def __init__(self, page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, run: RunFolder) -> "Reader":
        self.page.goto(run.page.resolve().as_uri())
        self.page.wait_for_selector("html[data-ready]", state="attached", timeout=20_000)
        self.settle()
        return self

    def settle(self) -> None:
        """Waits until what was asked for is drawn."""
        self.page.evaluate("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")

    def wait(self, condition: Callable[[], bool]) -> None:
        """Waits at most two seconds for what a page does by itself."""
        for _ in range(40):
            if condition():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError("it did not happen")

    def text(self, element: str) -> str:
        return self.page.locator(f"#{element}").inner_text()

    def view(self) -> tuple[float, float, float]:
        x, y, scale = self.page.locator("#map").get_attribute("data-view").split()
        return float(x), float(y), float(scale)

    def screen(self, row: int, col: int) -> tuple[float, float]:
        """Where a pixel of the scene lies on the screen."""
        x, y, scale = self.view()
        box = self.page.locator("#map").bounding_box()
        return box["x"] + x + (col + 0.5) * scale, box["y"] + y + (row + 0.5) * scale

    def hover(self, row: int, col: int) -> None:
        self.page.locator("#map").scroll_into_view_if_needed()
        self.page.mouse.move(*self.screen(row, col))
        self.settle()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def colours(self, rows: int, cols: int) -> np.ndarray:
        """`(rows, cols, 3)` what the canvas shows in the middle of each pixel of the scene."""
        x, y, scale = self.view()
        data = self.page.evaluate(
            """([x, y, scale, rows, cols]) => {
              const canvas = document.getElementById("map");
              const ratio = canvas.width / canvas.clientWidth;
              const image = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              const out = [];
              for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) {
                const [u, v] = [x + (c + 0.5) * scale, y + (r + 0.5) * scale];
                const at = 4 * (Math.floor(v * ratio) * canvas.width + Math.floor(u * ratio));
                out.push(...image.data.slice(at, at + 3));
              }
              return out;
            }""",
            [x, y, scale, rows, cols],
        )
        return np.array(data).reshape(rows, cols, 3)


def to_rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))


def find_wrong(files: RunFiles) -> tuple[int, int]:
    """A test pixel that is called by another class."""
    explorer = files.explorer
    return tuple(np.argwhere((explorer.sides == Side.TEST) & (explorer.truth != explorer.prediction))[-1].tolist())


def find_first(files: RunFiles) -> tuple[int, int]:
    explorer = files.explorer
    return tuple(np.argwhere((explorer.sides == Side.TEST) & (explorer.truth != explorer.prediction))[0])


def read_curve(reader: Reader, style: str) -> tuple[np.ndarray, np.ndarray]:
    """The curve that is drawn, in the numbers that the axes of the picture give it."""

    def axis(selector: str, attribute: str) -> np.ndarray:
        ticks = reader.page.locator(selector).evaluate_all(
            "(all, name) => all.map((each) => [Number(each.textContent), Number(each.getAttribute(name))])", attribute
        )
        (low, start), *_, (high, end) = [tick for tick in ticks if not np.isnan(tick[0])]
        return np.poly1d([(high - low) / (end - start), low - start * (high - low) / (end - start)])

    path = reader.page.locator(f"#spectrum path.{style}").get_attribute("d")
    points = np.array([[float(number) for number in point.split()] for point in re.split("[ML]", path)[1:]])
    to_value = axis("#spectrum text[text-anchor=end]", "y")
    to_nm = axis("#spectrum text[text-anchor=middle]", "x")
    return to_nm(points[:, 0]), to_value(points[:, 1] + 3.5)
