"""Fills docs/settings.md with a table for every section of a config, from its JSON Schema."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MARKER = "<!-- settings -->"
Node = Mapping[str, Any]
_NONE = "–"


@dataclass(frozen=True)
class Section:
    """A part of the schema that is an object: where it belongs in a config, and what tells it apart.

    Attributes:
        path: dotted, such as `model.attention.POINT`.
        name: of the definition in the schema.
        mark: the settings that tell it from its alternatives, such as `{kind: random}`; may be empty.
    """

    path: str
    name: str
    mark: str

    @property
    def title(self) -> str:
        return f"`{self.path}: {self.mark}`" if self.mark else f"`{self.path}`"

    @property
    def anchor(self) -> str:
        return f"settings-{self.name.lower()}"


def on_page_markdown(markdown: str, **_: object) -> str:
    """MkDocs calls this for every page."""
    if MARKER not in markdown:
        return markdown
    from hsi_se.config.experiment import Config

    return markdown.replace(MARKER, render_settings(Config.model_json_schema()))


def render_settings(schema: Node) -> str:
    """Returns Markdown: a heading for every setting at the top, then a table for every section below it."""
    definitions = schema.get("$defs", {})
    written: set[str] = set()
    parts = []
    for key, node in schema["properties"].items():
        sections = []
        for section in list_sections(key, node, definitions):
            if section.name not in written:  # a block belongs to several networks; it is written once
                sections.append(section)
                written.add(section.name)
        parts.append(f"## `{key}`\n")
        if not (sections and sections[0].title == f"`{key}`"):
            is_required = key in schema.get("required", ())
            parts.append(f"{_sentence(node)}\n\n{_summarize(node, definitions, is_required=is_required)}\n")
        parts += [_render_section(section, definitions, is_alone=section.title == f"`{key}`") for section in sections]
    return "\n".join(parts)


def list_sections(path: str, node: Node, definitions: Node) -> Iterator[Section]:
    """Yields the objects that a setting may be, each before those that lie below it."""
    choices = _list_alternatives(node)
    names = [choice["$ref"].rpartition("/")[2] for choice in choices if "$ref" in choice]
    for name in names:
        properties = definitions[name].get("properties", {})
        yield Section(path, name, _mark(definitions[name]) if len(choices) > 1 else "")
        for key, below in properties.items():
            yield from list_sections(f"{path}.{key}", below, definitions)
    for choice in choices:
        if "$ref" in choice.get("items", {}):
            yield from list_sections(f"{path}[…]", choice["items"], definitions)
    if isinstance(node.get("additionalProperties"), Mapping):
        yield from list_sections(f"{path}.POINT", node["additionalProperties"], definitions)


def _mark(definition: Node) -> str:
    properties = definition.get("properties", {})
    fixed = {key: node["const"] for key, node in properties.items() if "const" in node}
    if fixed:
        return "{" + ", ".join(f"{key}: {value}" for key, value in fixed.items()) + "}"
    return "{" + ", ".join(f"{key}: …" for key in _list_required(definition)) + "}"


def _list_required(definition: Node) -> Sequence[str]:
    """The settings that must be given; of several sets, the first."""
    ways = [definition, *definition.get("anyOf", ())]
    return next((way["required"] for way in ways if "required" in way), ())


def _render_section(section: Section, definitions: Node, *, is_alone: bool) -> str:
    definition = definitions[section.name]
    required = definition.get("required", ())
    heading = "" if is_alone else f"### {section.title} {{ #{section.anchor} }}\n\n"
    rows = [
        f"| `{key}` | {_values(node, definitions)} | {_default(node, is_required=key in required)} "
        f"| {_cell(_sentence(node))} |\n"
        for key, node in definition.get("properties", {}).items()
        if "const" not in node
    ]
    head = "| setting | values | default | meaning |\n|:---|:---|:---|:---|\n"
    table = head + "".join(rows) if rows else "It has no further settings.\n"
    return f"{heading}{_sentence(definition)}\n\n{table}"


def _summarize(node: Node, definitions: Node, *, is_required: bool) -> str:
    default = _default(node, is_required=is_required)
    end = " Required." if is_required else f" Default: {default}." if default != _NONE else ""
    return f"Values: {_values(node, definitions)}.{end}"


def _list_alternatives(node: Node) -> list[Node]:
    for key in ("oneOf", "anyOf", "allOf"):
        if key in node:
            return [choice for choice in node[key] if choice.get("type") != "null"]
    return [node]


def _values(node: Node, definitions: Node) -> str:
    """What may be written, in words: plain values first."""
    choices = sorted(_list_alternatives(node), key=lambda each: "items" in each or "prefixItems" in each)
    if "discriminator" in node:
        key = node["discriminator"]["propertyName"]
        return f"a section with `{key}`: {', '.join(_link(each, definitions) for each in choices)}"
    return " or ".join(dict.fromkeys(_value(choice, definitions) for choice in choices))


def _link(node: Node, definitions: Node) -> str:
    """A section by the word that tells it from its alternatives, or by all that must be given."""
    name = node["$ref"].rpartition("/")[2]
    fixed = [str(each["const"]) for each in definitions[name]["properties"].values() if "const" in each]
    required = _mark(definitions[name]) if _list_required(definitions[name]) else ""
    text = f"`{', '.join(fixed) or required}`" if fixed or required else "a section"
    return f"[{text}](#{Section('', name, '').anchor})"


def _value(node: Node, definitions: Node) -> str:
    if "$ref" in node:
        return _link(node, definitions)
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{choice}`" for choice in node["enum"])
    if "oneOf" in node or "anyOf" in node:
        return _values(node, definitions)
    match node.get("type"):
        case "array" if "prefixItems" in node:
            values = [_values(each, definitions) for each in node["prefixItems"]]
            return f"[{len(values)} × {values[0]}]" if len(set(values)) == 1 else f"[{', '.join(values)}]"
        case "array":
            return f"list of {_values(node.get('items', {}), definitions)}"
        case "object" if isinstance(node.get("additionalProperties"), Mapping):
            return f"a section; each entry: {_values(node['additionalProperties'], definitions)}"
        case "boolean":
            return "`true`, `false`"
        case "integer" | "number" as kind:
            return f"{kind}{_limits(node)}"
        case "string":
            return "text"
        case _:
            return "a value"


def _limits(node: Node) -> str:
    """Such as ` ≥ 0, < 1`, without the bound that the size of a machine's numbers sets."""
    if "minimum" in node and "maximum" in node:
        return f" {node['minimum']:,} to {node['maximum']:,}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [(sign, node[key]) for key, sign in signs.items() if key in node]
    return " " + ", ".join(f"{sign}&nbsp;{value:,}" for sign, value in found if value < 2**63) if found else ""


def _default(node: Node, *, is_required: bool) -> str:
    if is_required:
        return "required"
    value = node.get("default")
    return _NONE if value is None or value == "" else f"`{_yaml(value)}`"


def _yaml(value: object) -> str:
    """A default as one would write it in a config, on one line."""
    if isinstance(value, Mapping):
        entries = ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items() if each is not None)
        return "{" + entries + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_yaml(each) for each in value) + "]"
    return value if isinstance(value, str) else json.dumps(value)


def _sentence(node: Node) -> str:
    text = " ".join(str(node.get("description", "")).split())
    if not text:
        return ""
    return f"{text[0].upper()}{text[1:]}".rstrip(".") + "."


def _cell(text: str) -> str:
    """Outside of `code`, a bar would end the cell, and <name> would be HTML."""
    spans = re.split(r"(`[^`]*`)", text)
    return "".join(span if span.startswith("`") else span.replace("|", "\\|").replace("<", "&lt;") for span in spans)
