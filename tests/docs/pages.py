"""The Markdown pages of the documentation, taken apart: code blocks, commands, links and headings."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")


def list_blocks(markdown: str, language: str) -> list[str]:
    """The text of every fenced block of a language, without the fence's own indent."""
    found = (match for match in _FENCE.finditer(markdown) if match[2] == language)
    return [re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE) for match in found]


def list_spans(markdown: str) -> list[str]:
    """Every `span` of code outside of fenced blocks."""
    return _SPAN.findall(_FENCE.sub("", markdown))


def list_commands(markdown: str) -> Iterator[list[str]]:
    """The words of every command of ours in the shell blocks; comments and `\\` as a shell reads them."""
    for block in list_blocks(markdown, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["hsi-se"]:
                yield words
            elif "hsi_se" in words:  # python -m hsi_se, or by torchrun
                yield ["hsi-se", *words[words.index("hsi_se") + 1 :]]


def list_links(markdown: str) -> list[str]:
    """The target of every link and picture."""
    return re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", markdown))


def list_anchors(markdown: str) -> set[str]:
    """The anchors of a page's headings, as MkDocs and GitHub make them."""
    headings = re.findall(r"^#+ (.+?)(?: \{.*\})?$", _FENCE.sub("", markdown), re.MULTILINE)
    given = re.findall(r"\{ *#([\w-]+) *\}", markdown)
    return {*given, *map(_slugify, headings)}


def _slugify(heading: str) -> str:
    plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"[-\s]+", "-", plain)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def find_dead_links(path: Path, markdown: str, *, anchors: dict[Path, set[str]]) -> list[str]:
    """The relative links of a page at `path` that lead to no file, or to no heading of a known page."""
    dead = []
    for link in list_links(markdown):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.is_file() or (anchor and anchor not in anchors.get(target, {anchor})):
            dead.append(link)
    return dead
