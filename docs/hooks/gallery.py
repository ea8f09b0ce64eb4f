"""Fills docs/gallery.md with reports of real scenes, which are trained and evaluated while the site is built.

They are kept in `.cache/gallery`, so that they are made again only after the package or their configs have changed.
"""

import hashlib
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "gallery"
DATASETS = (ROOT / "datasets", ROOT.parent / "shared" / "datasets")
MARKER = "<!-- gallery -->"
PICTURES = Path(__file__).with_name("report_picture.py")
SHARED = runpy.run_path(str(PICTURES))


@dataclass(frozen=True)
class Example:
    """A report: its title, config and changes to it, and the scene's folder; that of Indian Pines is fetched."""

    name: str
    title: str
    about: str
    config: str
    changes: tuple[str, ...] = ()
    folder: str = ""
    is_explained: bool = False


EXAMPLES = (
    Example(
        "indian-pines-at-random",
        "Indian Pines, pixels drawn at random",
        "Test pixels lie between the training pixels. The location floor, which sees no spectrum, is far higher.",
        "configs/indian_pines_demo.yaml",
        ("split={kind: random, train: 0.1, validation: 0}",),
        is_explained=True,
    ),
    Example(
        "indian-pines-on-new-ground",
        "Indian Pines, on new ground",
        "The same network in five folds of whole blocks. The map has a layer where the folds disagree.",
        "configs/indian_pines_demo.yaml",
    ),
    Example(
        "enmap-potsdam",
        "EnMAP tiles over Potsdam",
        "Forty points of the land cover on twelve tiles of 30 m, tested in folds of whole tiles (data © DLR).",
        "docs/hooks/enmap_potsdam.yaml",
        folder="enmap_potsdam",
    ),
)


def on_files(files: Any, config: Any) -> Any:
    """MkDocs calls this with the files of the site: the reports and their pictures join them."""
    from mkdocs.structure.files import File

    for example in EXAMPLES:
        made = make_report(example)
        for path in sorted(made.glob(f"{example.name}.*")) if made else ():
            files.append(File.generated(config, f"gallery/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """MkDocs calls this for every page."""
    return markdown.replace(MARKER, "\n".join(map(render, EXAMPLES))) if MARKER in markdown else markdown


def find_data(example: Example) -> Path | None:
    """Returns the folder of an example's scene; None where the scene is not."""
    if not example.folder:
        return CACHE / "indian-pines"
    return next((folder / example.folder for folder in DATASETS if (folder / example.folder).is_dir()), None)


def list_commands(example: Example, data: Path | str) -> list[list[str]]:
    """Returns the commands that make a report, for the folder `run`."""
    changes = [part for change in example.changes for part in ("--set", change)]
    fetch = [] if example.folder else [["scene", "fetch", "indian-pines", "--out", str(data)]]
    train = ["train", example.config, *changes, "--data", str(data), "--out", "run"]
    explain = [["explain", "run", "--data", str(data)]] if example.is_explained else []
    return [*fetch, train, ["eval", "run", "--data", str(data)], *explain]


def make_report(example: Example) -> Path | None:
    """Returns the folder with an example's page and, where a browser is, its picture; None without the scene."""
    data = find_data(example)
    if data is None:
        return None
    made = CACHE / f"{example.name}-{digest(example)[:16]}"
    if not made.is_dir():
        draft = made.with_suffix(f".{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        (draft / "configs").symlink_to(ROOT / "configs")
        (draft / "docs").symlink_to(ROOT / "docs")
        page = SHARED["make_run"](list_commands(example, data), draft)
        shutil.copy(page, draft / f"{example.name}.html")
        if SHARED["find_chromium"]():
            picture = str(draft / f"{example.name}.png")
            subprocess.run([sys.executable, str(PICTURES), str(page), picture], check=True)
        for path in (draft / "run", draft / "configs", draft / "docs"):
            path.unlink() if path.is_symlink() else shutil.rmtree(path)
        draft.rename(made)
    return made


def digest(example: Example) -> str:
    """Returns a digest of what a report is made from: the package, the config and the example."""
    found = hashlib.sha256(repr(example).encode())
    package = [path for path in (ROOT / "hsi_se").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    for path in sorted([*package, ROOT / example.config]):
        found.update(path.read_bytes())
    return found.hexdigest()


def render(example: Example) -> str:
    """Returns Markdown: the title, the picture that leads to the report, and the commands that made it."""
    made = make_report(example)
    where = "datasets" if not example.folder else f"datasets/{example.folder}"
    code = "\n".join(shlex.join(["hsi-se", *words]) for words in list_commands(example, where))
    config = (ROOT / example.config).read_text(encoding="utf-8").strip()
    link = f"gallery/{example.name}.html"
    if made is None:
        shown = f"This report is not here: the site was built without the scene in `{where}`."
    elif (made / f"{example.name}.png").is_file():
        picture = f"![The report: {example.title}](gallery/{example.name}.png){{ .shadow }}"
        shown = f"[{picture}]({link})\n\n[Open the report]({link})"
    else:
        shown = f"[Open the report]({link})"
    listing = f'```sh\n{code}\n```\n\n??? note "`{example.config}`"\n\n' + "\n".join(
        f"    {line}".rstrip() for line in ["```yaml", *config.splitlines(), "```"]
    )
    return f"## {example.title}\n\n{example.about}\n\n{shown}\n\n{listing}\n"
