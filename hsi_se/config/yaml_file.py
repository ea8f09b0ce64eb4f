"""Reads configs from YAML with `--set` overrides and exact error positions, and writes them.

A mistake is reported as `file:line:column: path: what is wrong`. A mistake in an override, from
`--set a.b=c` or from another file, is reported at the override.
"""

import copy
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from hsi_se.config.base import Settings
from hsi_se.config.experiment import Config
from hsi_se.errors import ConfigError

Kind = TypeVar("Kind", bound=Settings)
Loc = tuple[int | str, ...]
_MAX_LENGTH = 2**17  # characters
_MAX_VALUES = 100_000  # in a config, with every alias expanded
_MAX_DEPTH = 50
_LONGEST_SHOWN = 200  # characters, or bits
_KINDS = ("kind", "name")  # keys that decide which other keys a section may contain


@dataclass(frozen=True, eq=False)
class Override:
    """A setting that replaces one of a config's.

    Attributes:
        key: dotted key, such as `patch.size`.
        value: plain Python value.
        place: returns where the user wrote it, or the entry at the given keys below it.
        form: format in which a key and a value are written there.
    """

    key: str
    value: Any
    place: Callable[[Sequence[str]], str]
    form: str = "{}: {}"

    @classmethod
    def parse(cls, text: str) -> "Override":
        """Parses `a.b=c`, where c is YAML."""
        place = f"--set {text}"
        key, equals, value = text.partition("=")
        if not equals or not all(key.strip().split(".")):
            raise ConfigError(f"{place}: write key=value with a dotted key, such as patch.size=15")
        plain = _plain(_parse_yaml(value, where=place), where=place)
        return cls(key.strip(), plain, lambda _: place, form='--set "{}={}"')


def load_config(path: str | Path, overrides: Sequence[str | Override] = ()) -> Config:
    """Returns the experiment described by a YAML file, with overrides applied in order.

    Args:
        path: the YAML file.
        overrides: `key=value` with any dotted key and a YAML value: `model.attention={}`, `patch.size=15`.

    Raises:
        ConfigError: the file is missing or not YAML, or a setting is unknown, has the wrong type or
            conflicts with another; the message starts with `file:line:column:` or `--set a.b=c:`.
    """
    return parse_config(read_text(path), overrides, path=Path(path))


def read_text(path: str | Path) -> str:
    """Returns the text of a config file.

    Raises:
        ConfigError: the file is missing or not text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file; check the path") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; give a YAML config file in it") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read as text ({error}); give a YAML config file") from None


def parse_config(text: str, overrides: Sequence[str | Override] = (), *, path: Path) -> Config:
    """Parses a config from text, like `load_config`; `path` is used in messages and as the default name."""
    return parse_settings(Config, text, overrides, path=path)[0]


def parse_settings(
    kind: type[Kind], text: str, overrides: Sequence[str | Override] = (), *, path: Path
) -> tuple[Kind, CommentedMap]:
    """Returns the settings in a YAML text, validated as `kind`, and the document with its positions."""
    if len(text) > _MAX_LENGTH:
        raise ConfigError(
            f"{path}: {len(text):,} characters are too long for a config; give a YAML config file"
        )
    document = _parse_yaml(text, where=str(path))
    if not isinstance(document, CommentedMap):
        raise ConfigError(
            f"{path}:1:1: contains no settings; a config is a YAML mapping, see configs/demo.yaml"
        )
    settings = _plain(document, where=str(path))
    parsed = [Override.parse(entry) if isinstance(entry, str) else entry for entry in overrides]
    for override in parsed:
        _apply_override(settings, override)
    settings.setdefault("name", re.sub(r"[^\w.+-]", "_", path.stem))
    try:
        return kind.model_validate(settings), document
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(_explain(first, document, settings, path, parsed)) from None


def dump_config(config: Config, *, is_named: bool = True) -> str:
    """Returns all settings, including defaults, as YAML that `load_config` reads back.

    With `is_named=False` the name is left out, so the config takes the name of its file.
    """
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 100
    yaml.Representer = _Representer
    left_out = set() if is_named else {"name"}
    yaml.dump(config.model_dump(mode="json", exclude_none=True, exclude=left_out), stream)
    return stream.getvalue()


class _Representer(SafeRepresenter):
    """Quotes strings such as `?0`, which ruamel.yaml leaves plain but YAML cannot read inside [] and {}."""

    def represent_text(self, text: str) -> ScalarNode:
        is_plain = re.fullmatch(r"[\w./][\w./+ -]*", text, re.ASCII) is not None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')


_Representer.add_representer(str, _Representer.represent_text)


def _parse_yaml(text: str, *, where: str) -> Any:
    steps = ((sign in "[{") - (sign in "]}") for sign in text)
    if max(accumulate(steps), default=0) > _MAX_DEPTH:  # the parser would take minutes
        raise ConfigError(f"{where}: brackets are nested more than {_MAX_DEPTH} deep; correct the YAML")
    try:
        return YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        raise ConfigError(f"{place}: {error.problem or error.context}; correct the YAML") from None
    except Exception as error:  # a damaged file can break the parser in any way
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{where}: {line}; correct the YAML") from None


def _plain(node: object, *, where: str) -> Any:
    """Returns the document as plain Python values, with aliases expanded.

    Raises:
        ConfigError: the document is too large or nested too deep, or a key is empty or not a scalar.
    """
    num_values = 0

    def convert(node: object, depth: int) -> Any:
        nonlocal num_values
        num_values += 1
        if depth > _MAX_DEPTH or num_values > _MAX_VALUES:
            raise ConfigError(f"{where}: too deeply nested or too large for a config; correct the YAML")
        if isinstance(node, CommentedMap):
            for key in node:
                if not isinstance(key, str | int | float) or not str(key).strip():
                    line, column = (node.lc.data or {}).get(key, (node.lc.line, node.lc.col))[:2]
                    raise ConfigError(
                        f"{where}:{line + 1}:{column + 1}: a key must be a name; write name: value"
                    )
            return {str(convert(key, depth + 1)): convert(value, depth + 1) for key, value in node.items()}
        if isinstance(node, Sequence) and not isinstance(node, str):
            return [convert(value, depth + 1) for value in node]
        for kind in (bool, int, float, str):
            if isinstance(node, kind):
                return kind(node)
        return node

    return convert(node, 0)


def _apply_override(settings: dict[str, Any], override: Override) -> None:
    keys = override.key.split(".")
    if not all(keys):
        raise ConfigError(f"{override.place(())}: {override.key}: write a dotted key, such as patch.size")
    section = settings
    for depth, part in enumerate(keys[:-1], start=1):
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            parent = ".".join(keys[:depth])
            raise ConfigError(
                f"{override.place(())}: {parent} = {section!r} is a value, not a section; "
                f"replace it: {override.form.format(parent, '{…}')}"
            )
    section[keys[-1]] = copy.deepcopy(override.value)


def _explain(
    error: ErrorDetails, document: CommentedMap, settings: object, path: Path, overrides: Sequence[Override]
) -> str:
    context = error.get("ctx", {})
    loc: Loc = error["loc"]
    if error["type"] == "mistake" and context.get("key"):
        loc = (*loc, *context["key"].split("."))
    if "discriminator" in context:
        loc = (*loc, str(context["discriminator"]).strip("'"))
    keys, value, is_present = _follow(settings, loc)
    if error["type"] in ("missing", "union_tag_not_found"):
        keys, is_present = (*keys, str(loc[-1])), False
    dotted = ".".join(keys)
    shown = f"{dotted} = {_show(value)}" if is_present and not isinstance(value, dict | list) else dotted
    problem = f"{shown}: {_what_is_wrong(error)}"
    override = _find_override(document, keys, overrides)
    if override is not None:
        return f"{override.place(keys[override.key.count('.') + 1 :])}: {problem}"
    for override in reversed(overrides):  # an override may have changed only the kind of a section
        *section, key = override.key.split(".")
        is_of_kind = key in _KINDS and override.value in loc and list(keys[: len(section)]) == section
        if section and is_of_kind and _follow(document, (*section, key))[1] != override.value:
            whole = override.form.format(".".join(section), f"{{{key}: {override.value}}}")
            remedy = "" if error["type"] == "missing" else f"; or replace the section: {whole}"
            return f"{override.place(())}: {problem}{remedy}"
    return f"{path}:{locate(document, keys)[0]}: {problem}"


def _show(value: object) -> str:
    """Returns a value as one line of bounded length; Python itself refuses to print very long integers."""
    if isinstance(value, int) and value.bit_length() > _LONGEST_SHOWN:
        return f"a number of {value.bit_length():,} bits"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _what_is_wrong(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "missing" | "union_tag_not_found":
            return "is missing; add it"
        case "literal_error" | "union_tag_invalid":
            expected = str(context.get("expected") or context.get("expected_tags"))
            return f"choose from {expected.replace(' or ', ', ')}"
        case "mistake":
            return str(context["message"])
        case "model_type" | "model_attributes_type" | "dict_type":
            return "should be a section; give its settings as a mapping, {…}"
        case "string_pattern_mismatch":
            return "use letters, digits, '.', '_', '+' and '-' only"
        case _:
            message = error["msg"].removeprefix("Input ")
            return f"{message[0].lower()}{message[1:]}"


def _follow(settings: object, loc: Loc) -> tuple[tuple[str, ...], object, bool]:
    """Returns the keys of pydantic's `loc` that the user wrote, without union tags, and the value there."""
    keys: tuple[str, ...] = ()
    value = settings
    for part in loc:
        match value:
            case dict() if part in value:
                value = value[part]
            case list() if isinstance(part, int) and part < len(value):
                value = value[part]
            case _:
                continue
        keys = (*keys, str(part))
    return keys, value, bool(keys)


def locate(document: CommentedMap, keys: Sequence[str]) -> tuple[str, int]:
    """Returns `line:column` of the innermost of `keys` found in the document, and how many are found."""
    line, column = 0, 0
    node: Any = document
    for depth, name in enumerate(keys):
        known = {str(key): key for key in node} if isinstance(node, CommentedMap) else {}
        if name not in known:
            return f"{line + 1}:{column + 1}", depth
        if known[name] in (node.lc.data or {}):  # a key merged by `<<: *other` has no position
            line, column = node.lc.key(known[name])
        node = node[known[name]]
    return f"{line + 1}:{column + 1}", len(keys)


def _find_override(
    document: CommentedMap, keys: tuple[str, ...], overrides: Sequence[Override]
) -> Override | None:
    """Returns the last override that set the value at `keys` or created a section missing from the file."""
    _, depth = locate(document, keys)
    absent = keys[: depth + 1] if depth < len(keys) else None  # the outermost key missing from the file
    for override in reversed(overrides):
        changed = tuple(override.key.split("."))
        has_created = absent is not None and changed[: len(absent)] == absent
        if changed == keys[: len(changed)] or has_created:
            return override
    return None
