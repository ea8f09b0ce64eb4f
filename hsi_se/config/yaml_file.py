"""Reads a config from YAML, applies `--set` overrides, and writes it back.

One index maps every setting to where it is written: `file:line:column`, `--set a.b=c`, or a line of
another file that overrides the config. A mistake is reported as `where: path: what is wrong; the remedy`.
"""

import copy
import io
import itertools
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from hsi_se.config.arguments import checked, show_setting
from hsi_se.config.base import Settings
from hsi_se.config.experiment import Config
from hsi_se.config.nearest import did_you_mean, find_setting, read_other_words
from hsi_se.config.registry import Registry
from hsi_se.errors import ConfigError

Kind = TypeVar("Kind", bound=Settings)
Keys = tuple[str, ...]
Places = Mapping[Keys, str]  # where each setting is written, by its nested keys; () is the whole
_MAX_LENGTH = 2**17  # characters
_MAX_VALUES = 100_000  # in a config, with every alias expanded
_MAX_DEPTH = 50
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
_DATA = (".csv", ".geojson", ".hdr", ".xml")  # endings of text that is data
_FILES = {  # a setting by which a file is known, what it is, and what to do with it
    "search": ("a study", "run it with `hsi-se tune"),
    "seeds": ("an ablation", "run it with `hsi-se ablate"),
    "model": ("a config", "train it with `hsi-se train"),
}
_KINDS = ("kind", "name")  # settings that decide which others a section may have


@dataclass(frozen=True, eq=False)
class Override:
    """A setting that replaces one of a config."""

    key: str  # dotted
    value: Any  # plain
    places: Places  # where the user wrote the value, and what lies below it
    form: str = "{}: {}"  # how a key and a value are written there

    @classmethod
    def parse(cls, text: str) -> "Override":
        """Parses `a.b=c`, with c in YAML."""
        place = f"--set {text}"
        key, equals, value = text.partition("=")
        if not equals or not all(key.strip().split(".")):
            raise ConfigError(f"{place}: write key=value with a dotted key, such as patch.size=15")
        plain, _ = _read(_parse_yaml(value, where=place), where=place)
        return cls(key.strip(), plain, {(): place}, form='--set "{}={}"')

    @property
    def place(self) -> str:
        return self.places[()]

    @property
    def keys(self) -> Keys:
        return tuple(self.key.split("."))


def find_place(places: Places, keys: Keys) -> str:
    """Returns where a setting is written; of one that is not, where the innermost section around it is."""
    return next(places[keys[:depth]] for depth in range(len(keys), -1, -1) if keys[:depth] in places)


@checked("overrides")
def load_config(path: str | os.PathLike[str], overrides: Sequence[str | Override] = ()) -> Config:
    """Returns the experiment described by a YAML file, with overrides `key=value` applied in order.

    Keys are dotted and values in YAML: `model.attention={}`, `patch.size=15`. ConfigError if the file is missing or not
    YAML, or a setting is unknown, of the wrong type or in conflict with another; the message starts with
    `file:line:column:` or `--set a.b=c:`.
    """
    return parse_config(read_text(path), overrides, path=Path(path))


def read_config(config: object, overrides: Sequence[str | Override] = ()) -> Config:
    """Returns the experiment that a config describes: an object, a mapping of settings, or a YAML file.

    Overrides and errors are those of `load_config`; a mistake in a mapping or an object has no place in a file.
    """
    if isinstance(config, str | os.PathLike):
        return load_config(config, overrides)
    if isinstance(config, Config) and not overrides:
        return config
    if not isinstance(config, Config | Mapping):
        raise ConfigError(f"config = {show_setting(config)}: is not a config; give a YAML file, a mapping or a Config")
    return read_settings(Config, config, overrides, name="config")[0]


def read_settings(
    kind: type[Kind], given: Mapping[str, Any] | Settings, overrides: Sequence[str | Override] = (), *, name: str
) -> tuple[Kind, Places]:
    """Returns the settings in a mapping or another object, and their places, which are all `name`."""
    plain = _to_plain(given)
    return _validate(kind, plain, dict.fromkeys(_list_keys(plain), name), overrides, name="")


def _to_plain(value: Any) -> Any:
    """Returns nested settings as YAML has them, without numbers of NumPy, tuples and objects."""
    if isinstance(value, Config) and getattr(value.split, "buffer", None) == value.default_buffer:
        value = value.model_copy(update={"split": value.split.model_copy(update={"buffer": None})})
    if isinstance(value, Settings):
        value = value.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    if isinstance(value, Mapping):
        return {str(key): _to_plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else os.fspath(value) if isinstance(value, os.PathLike) else value


def _list_keys(value: Any, above: Keys = ()) -> list[Keys]:
    below = value.items() if isinstance(value, Mapping) else ()
    return [above, *(keys for key, each in below for keys in _list_keys(each, (*above, key)))]


def read_text(path: str | os.PathLike[str]) -> str:
    """Returns the text of a config file; ConfigError if it is missing, or is not UTF-8 text."""
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(4 * _MAX_LENGTH + 1)  # UTF-8 takes at most 4 bytes for a character
        if len(content) > 4 * _MAX_LENGTH:
            raise ConfigError(f"{path}: is too long for a config; give a YAML config file")
        text = content.decode("utf-8").replace("\r\n", "\n")
        if Path(path).suffix.casefold() in _DATA:
            raise ConfigError(f"{path}: is not a config; {_to_write_one(path)}")
        return text
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file; check the path") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error.reason}); {_to_write_one(path)}") from None
    except IsADirectoryError:
        found = next(iter(sorted(Path(path).glob("*.y*ml"))), None)
        such = "" if found is None else f", such as {found}"
        raise ConfigError(f"{path}: is a folder; give a YAML config file in it{such}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read as text ({error}); give a YAML config file") from None


def _to_write_one(path: str | os.PathLike[str]) -> str:
    command = f"hsi-se scene inspect {shlex.quote(str(path))} LABELS --write-config my.yaml"
    return f"if it is a scene's data, write a config with `{command}`"


def parse_config(text: str, overrides: Sequence[str | Override] = (), *, path: Path) -> Config:
    """Returns the experiment that a YAML text describes, as `load_config` does for a file.

    Messages refer to the text as `path`, whose stem is also the config's default name.
    """
    return parse_settings(Config, text, overrides, path=path)[0]


def parse_settings(
    kind: type[Kind], text: str, overrides: Sequence[str | Override] = (), *, path: Path
) -> tuple[Kind, Places]:
    """Returns the settings in a YAML text, which include a name, and where each is written."""
    if len(text) > _MAX_LENGTH:
        raise ConfigError(f"{path}: {len(text):,} characters are too long for a config; give a YAML config file")
    document = _parse_yaml(text, where=str(path))
    if not isinstance(document, CommentedMap):
        raise ConfigError(f"{path}:1:1: contains no settings; a config is a YAML mapping, see configs/demo.yaml")
    written, places = _read(document, where=str(path))
    own = next(key for key in _FILES if key in kind.model_fields)
    found = next((key for key in _FILES if key in written and (key == "model") != ("base" in written)), own)
    if found != own:
        name, remedy = _FILES[found]
        named = f", or name it as base: in {_FILES[own][0]}" if found == "model" else ""
        raise ConfigError(f"{path}: is {name}, not {_FILES[own][0]}; {remedy} {path}`{named}")
    return _validate(kind, written, places, overrides, name=re.sub(r"[^\w.+-]", "_", path.stem))


def _validate(
    kind: type[Kind], written: Any, places: Places, overrides: Sequence[str | Override], *, name: str
) -> tuple[Kind, Places]:
    """Returns the settings that are written, with overrides, and where each is written."""
    settings, in_force = copy.deepcopy(written), dict(places)
    parsed = [Override.parse(entry) if isinstance(entry, str) else entry for entry in overrides]
    for override in parsed:
        _apply(override, settings, in_force)
    if "name" in kind.model_fields:
        settings.setdefault("name", name)
    try:
        return kind.model_validate(settings), places
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        keys, problem = _explain(first, settings, kind)
        place, remedy = find_place(in_force, keys), ""
        changed = _find_changed_kind(first, keys, written, parsed)
        if changed is not None and place == find_place(places, keys):
            *section, key = changed.keys
            files = ", partition: FILE" if changed.value == "masks" else ""
            whole = changed.form.format(".".join(section), f"{{{key}: {changed.value}{files}}}")
            place, remedy = changed.place, f"; or replace the section: {whole}"
        raise ConfigError(f"{place}: {problem}{'' if first['type'] == 'missing' else remedy}") from None


def dump_config(config: Config, *, is_named: bool = True) -> str:
    """Returns all settings, including defaults, as YAML that `load_config` reads back.

    Without its name, the config takes the name of the file it is written to.
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
    """Quotes text that ruamel.yaml would leave plain but cannot read back inside [] and {}, such as `?0`."""

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
    except Exception as error:  # a damaged file can make the parser fail in any way
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{where}: {line}; correct the YAML") from None


def _read(document: object, *, where: str) -> tuple[Any, dict[Keys, str]]:
    """Returns plain values, with aliases written out, and `file:line:column` of every key of a mapping.

    A key from a merge, `<<: *other`, has no place of its own: `find_place` then returns its section's. ConfigError if
    the document is too large or nested too deep, or a key is empty or not a scalar.
    """
    places: dict[Keys, str] = {(): f"{where}:1:1"}
    num_values = 0

    def convert(node: object, keys: Keys | None, depth: int) -> Any:
        """Converts a node at nested `keys`, which are None inside a list."""
        nonlocal num_values
        num_values += 1
        if depth > _MAX_DEPTH or num_values > _MAX_VALUES:
            raise ConfigError(f"{where}: too deeply nested or too large for a config; correct the YAML")
        if isinstance(node, CommentedMap):
            known = node.lc.data or {}
            values = {}
            for key, value in node.items():
                line, column = known.get(key, (node.lc.line, node.lc.col))[:2]
                place = f"{where}:{line + 1}:{column + 1}"
                if not isinstance(key, str | int | float) or not str(key).strip():
                    raise ConfigError(f"{place}: a key must be a name; write name: value")
                below = None if keys is None else (*keys, str(key))
                if below is not None and key in known:
                    places[below] = place
                values[str(key)] = convert(value, below, depth + 1)
            return values
        if isinstance(node, Sequence) and not isinstance(node, str):
            return [convert(value, None, depth + 1) for value in node]
        for kind in (bool, int, float, str):
            if isinstance(node, kind):
                return kind(node)
        return node

    return convert(document, (), 0), places


def _apply(override: Override, settings: dict[str, Any], places: dict[Keys, str]) -> None:
    keys = override.keys
    if not all(keys):
        raise ConfigError(f"{override.place}: {override.key}: write a dotted key, such as patch.size")
    section = settings
    for depth, part in enumerate(keys[:-1], start=1):
        if part not in section:
            places[keys[:depth]] = override.place
        if keys[:depth] == ("scene", "labels") and isinstance(section.get(part), str):
            section[part] = {"file": section[part]}  # a file name is short for it
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            parent = ".".join(keys[:depth])
            problem = f"{parent} = {section!r} is a value, not a section"
            raise ConfigError(f"{override.place}: {problem}; replace it: {override.form.format(parent, '{…}')}")
    section[keys[-1]] = copy.deepcopy(override.value)
    for replaced in [known for known in places if known[: len(keys)] == keys]:
        del places[replaced]
    places.update({(*keys, *below): place for below, place in override.places.items()})


def _explain(error: ErrorDetails, settings: object, kind: type[Settings]) -> tuple[Keys, str]:
    """Returns the nested keys that an error of pydantic is about, and `path = value: what is wrong`."""
    context = error.get("ctx", {})
    loc = error["loc"]
    if error["type"] == "mistake" and context.get("key"):
        loc = (*loc, *context["key"].split("."))
    if "discriminator" in context:
        loc = (*loc, str(context["discriminator"]).strip("'"))
    keys, value = _follow(settings, loc)
    problem = _describe(error, value)
    if error["type"] == "union_tag_not_found" or problem.startswith("is missing"):
        keys = (*keys, str(loc[-1]))
    dotted = ".".join(keys)
    shown = dotted if isinstance(value, dict | list) else f"{dotted} = {show_setting(value)}"
    if problem.startswith("unknown setting; choose from "):
        choices = problem.removeprefix("unknown setting; choose from ")
        setting = find_setting(dotted, list_settings(kind), here=choices.split(", "))
        hint = "" if setting is None else f"did you mean {setting}? "
        problem = f"unknown setting; {hint}choose from {choices}"
    return keys, f"{shown}: {problem}"


def list_settings(kind: type[Settings], prefix: str = "") -> list[str]:
    """Returns the dotted key of every setting, whatever the kinds of the sections."""
    found = []
    for name, field in kind.model_fields.items():
        found.append(f"{prefix}{name}")
        registered = [each for each in field.metadata if isinstance(each, Registry)]
        for section in registered[0].list_settings() if registered else _find_sections(field.annotation):
            found += list_settings(section, f"{prefix}{name}.")
    return list(dict.fromkeys(found))


def _find_sections(annotation: object) -> Iterator[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    elif get_origin(annotation) is not dict:  # whose keys the user chooses
        for part in get_args(annotation):
            yield from _find_sections(part)


def _find_changed_kind(
    error: ErrorDetails, keys: Keys, written: object, overrides: Sequence[Override]
) -> Override | None:
    """Returns the override that changed the kind of a section but kept its other settings, if one did."""
    for override in reversed(overrides):
        *section, key = override.keys
        is_of_kind = key in _KINDS and override.value in error["loc"] and list(keys[: len(section)]) == section
        if section and is_of_kind and _follow(written, override.keys)[1] != override.value:
            return override
    return None


def _describe(error: ErrorDetails, value: object) -> str:
    """Says what is wrong with a value, and what to write instead."""
    context = error.get("ctx", {})
    match error["type"]:
        case "literal_error" | "union_tag_invalid":
            expected = str(context.get("expected") or context.get("expected_tags"))
            hint = did_you_mean(value, re.findall(r"'([^']*)'", expected)) if isinstance(value, str) else ""
            return f"{hint}choose from {expected.replace(' or ', ', ')}"
        case "mistake":
            return str(context["message"])
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            name, bound = next(iter(context.items()))
            return f"must be {_BOUNDS[name]} {f'{bound:g}' if isinstance(bound, float) else bound}"
        case kind:
            words = read_other_words()["errors"]
            wanted = words.get(kind) or words.get(kind.partition("_")[0], "write a value of another kind")
            return f"{wanted} before the colon" if error["loc"][-1] == "[key]" else wanted


def _follow(settings: object, loc: Sequence[int | str]) -> tuple[Keys, object]:
    """Returns the part of pydantic's `loc` that the user wrote, which has no union tags, and its value."""
    keys: Keys = ()
    value: Any = settings
    for before, part in itertools.pairwise((None, *loc)):
        is_index = isinstance(value, list) and isinstance(part, int) and part < len(value)
        is_tag = isinstance(value, dict) and part == value.get("kind") != before  # `folds` is a kind and a key of it
        if is_index or (isinstance(value, dict) and part in value and not is_tag):
            keys, value = (*keys, str(part)), value[part]
    return keys, value
