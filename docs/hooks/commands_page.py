"""Fills docs/command-line.md with every command, from the command line's own help."""

import re
from collections.abc import Iterator
from typing import Any

MARKER = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: object) -> str:
    """MkDocs calls this for every page."""
    if MARKER not in markdown:
        return markdown
    import typer.main

    from hsi_se.cli.main import app

    return markdown.replace(MARKER, render_commands(typer.main.get_command(app)))


def list_commands(root: Any, prefix: str = "hsi-se") -> Iterator[tuple[str, Any]]:
    """Yields every command that can be run, with the words that call it; groups open into their own."""
    for name, command in getattr(root, "commands", {}).items():
        if hasattr(command, "commands"):
            yield from list_commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def render_commands(root: Any) -> str:
    """Returns Markdown: the commands under the headings that `hsi-se --help` has."""
    panels: dict[str, list[str]] = {}
    for name, command in root.commands.items():
        panel = command.rich_help_panel if isinstance(command.rich_help_panel, str) else ""
        members = list_commands(command, f"hsi-se {name}") if hasattr(command, "commands") else ()
        for words, each in members or [(f"hsi-se {name}", command)]:
            panels.setdefault(panel, []).append(_render_command(words, each))
    return "\n".join(
        (f"## {panel}\n\n" if panel else "## Commands\n\n") + "\n".join(commands) for panel, commands in panels.items()
    )


def _render_command(words: str, command: Any) -> str:
    context = command.make_context(words, [], resilient_parsing=True)
    parts = [f"### `{words}`\n", _render_help(command.help or "")]
    records = [each.get_help_record(context) for each in command.params]
    rows = [_render_parameter(name, text) for name, text in filter(None, records)]
    if rows:
        parts.append("| argument or option | meaning |\n|:---|:---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _render_help(text: str) -> str:
    """The help's paragraphs; a line that is a command becomes a block of code."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", text.replace("\b", "").strip()):
        lines = " ".join(paragraph.split())
        example = re.fullmatch(r"(?:Example: *|\$ *)?`?(hsi-se .+?)`?\.?", lines)
        parts.append(f"```sh\n{example[1]}\n```\n" if example else f"{_escape(lines)}\n")
    return "\n".join(parts)


def _render_parameter(name: str, text: str) -> str:
    name = re.sub(r" <path>", "", name)  # FILE and DIR say it already
    text = re.sub(r"\[required\]", "Required.", text)
    text = re.sub(r"\[default: ([^\]]*)\]", r"Default: `\1`.", text)
    return f"| `{name}` | {_escape(text)} |"


def _escape(text: str) -> str:
    """Markdown reads a placeholder such as <name> as HTML, and a bar as the end of a cell; not in `code`."""
    spans = re.split(r"(`[^`]*`)", " ".join(text.split()))
    signs = {"<": "&lt;", "[": "\\[", "*": "\\*", "|": "\\|"}
    return "".join(
        span if span.startswith("`") else re.sub(r"[<\[*|]", lambda found: signs[found[0]], span) for span in spans
    )
