"""Makes `images/report.png`, the picture on the front page: `python docs/hooks/report_picture.py`.

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


def photograph(page: Path, picture: Path) -> None:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # Chromium refuses to sandbox what root starts
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=sandbox)
        view = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        view.goto(page.as_uri())
        view.locator("canvas").first.click(position={"x": 230, "y": 260})
        view.mouse.move(0, 0)
        view.evaluate("scrollTo(0, 0)")
        view.screenshot(path=picture)
        browser.close()


def main() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as scratch:
        run, config = Path(scratch) / "runs" / "demo", str(ROOT / "configs" / "demo.yaml")
        for command in (["train", config, "--out", "runs/demo"], ["eval", "runs/demo"]):
            subprocess.run([sys.executable, "-m", "hsi_se", *command], cwd=scratch, env=environment, check=True)
        photograph(run / "report.html", PICTURE)
        accuracy = json.loads((run / "report.json").read_text(encoding="utf-8"))["overall_accuracy"]
    notes = PngInfo()
    notes.add_text("overall_accuracy", f"{accuracy:.6f}")
    notes.add_text("templates", digest_templates())
    with Image.open(PICTURE) as picture:
        few_colours = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)  # half the bytes
    few_colours.save(PICTURE, pnginfo=notes, optimize=True)


if __name__ == "__main__":
    main()
