"""Makes `images/report.png`, the picture on the front page: `python docs/hooks/report_picture.py`.

With a page and a file, it writes a picture of that page instead, as the gallery does.

It trains and evaluates `configs/demo.yaml` on one thread and photographs the page. The picture carries the
accuracy and a digest of the page's templates, so that a test notices when either has changed.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "report.png"
TEMPLATES = (
    "base.html", "report.html", "page.css", "page.js",
    "explorer.js", "explorer_chart.js", "explorer_layers.js", "explorer_place.js",
)  # fmt: skip
WIDTH, HEIGHT = 1280, 1180


def digest_templates() -> str:
    folder = ROOT / "hsi_se" / "reports" / "templates"
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in TEMPLATES)).hexdigest()


def find_chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


def photograph(page: Path, picture: Path, *, click: tuple[int, int] | None = None) -> None:
    """Writes a picture of the upper part of a page, after a click into its map."""
    from playwright.sync_api import sync_playwright

    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # Chromium refuses to sandbox what root starts
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=sandbox)
        view = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        view.goto(page.resolve().as_uri())
        view.wait_for_selector("html[data-ready]", state="attached")
        if click is not None:
            view.locator("canvas").first.click(position={"x": click[0], "y": click[1]})
            view.mouse.move(0, 0)
        view.evaluate("scrollTo(0, 0)")
        view.screenshot(path=picture)
        browser.close()


def make_run(commands: Sequence[Sequence[str]], folder: Path) -> Path:
    """Runs commands of hsi-se on one thread in a folder, and returns the page that `eval` names."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pages = []
    for words in commands:
        command = [sys.executable, "-m", "hsi_se", *words]
        out = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        pages += [line.removeprefix("page:").strip() for line in out.splitlines() if line.startswith("page:")]
    return folder / pages[-1]


def reduce_colours(picture: Path, notes: PngInfo | None = None) -> None:
    """Writes a picture again with 256 colours, which are half the bytes."""
    with Image.open(picture) as read:
        few_colours = read.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few_colours.save(picture, pnginfo=notes, optimize=True)


def main() -> None:
    config = str(ROOT / "configs" / "demo.yaml")
    with tempfile.TemporaryDirectory() as scratch:
        page = make_run([["train", config, "--out", "runs/demo"], ["eval", "runs/demo"]], Path(scratch))
        photograph(page, PICTURE, click=(230, 260))
        accuracy = json.loads((page.parent / "report.json").read_text(encoding="utf-8"))["overall_accuracy"]
    notes = PngInfo()
    notes.add_text("overall_accuracy", f"{accuracy:.6f}")
    notes.add_text("templates", digest_templates())
    reduce_colours(PICTURE, notes)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        photograph(*map(Path, sys.argv[1:]))
        reduce_colours(Path(sys.argv[2]))
    else:
        main()
