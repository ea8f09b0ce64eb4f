"""The registry of attention blocks and networks: the package's own, those of plugins, and those of a user's program.

All enter by `register_attention` or `register_network`. The package's modules are imported when a block or network is
built or an unknown one is named; entry points of installed packages when an unknown one is named; a file only if the
user names it (`load_plugin`). Nothing is imported because a config or a run names it.
"""

import functools
import hashlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, GetJsonSchemaHandler, TypeAdapter, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from hsi_se.config.arguments import checked
from hsi_se.config.base import mistake
from hsi_se.config.nearest import did_you_mean
from hsi_se.errors import ConfigError, HsiError, RunError

Factory = TypeVar("Factory", bound=Callable[..., Any])
_Printable = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,255}$")]


class Plugin(BaseModel):
    """The origin of blocks or networks that are not the package's own, as a run records it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    origin: _Printable  # file or distribution
    version: _Printable | None = None  # of the distribution
    digest: _Printable  # SHA-256 of the file, or of the module
    source: bytes = Field(default=b"", exclude=True, repr=False)  # of a file, with which a worker loads it again

    def __str__(self) -> str:
        return f"{self.origin}{(self.version and f' {self.version}') or ''} (SHA-256 {self.digest[:12]}…)"


@dataclass(frozen=True)
class Entry:
    """A block or network: its settings class, and what builds it, which is None until its module is imported."""

    settings: Any
    factory: Callable[..., Any] | None = None
    plugin: Plugin | None = None  # None for the package's own
    points: Mapping[str, str] = field(default_factory=dict)  # of a network of a plugin: the submodule of each
    input: str = "2d"
    facts: Mapping[str, Any] = field(default_factory=dict)  # class attributes of its settings

    def build(self, settings: BaseModel, **given: object) -> Any:
        """Calls the factory with what its signature names: `settings`, each of them, and those of `given`."""
        assert self.factory is not None
        values = {
            **{name: getattr(settings, name) for name in type(settings).model_fields},
            **given,
            "settings": settings,
        }
        named = inspect.signature(self.factory).parameters
        return self.factory(**{name: value for name, value in values.items() if name in named})


_loading: ContextVar[Plugin | None] = ContextVar("_loading", default=None)
_registries: "dict[str, Registry]" = {}


class Registry:
    """The blocks or the networks by name; in an annotation, the open union of their settings.

    Args:
        base: base class of the settings.
        group: `attention` or `networks`; entry points are in the group `hsi_se.attention` or `hsi_se.networks`.
        key: the setting that names one, `kind` or `name`.
        given: arguments of a factory that are not settings.
    """

    def __init__(self, base: Any, *, group: str, key: str, given: Sequence[str]) -> None:
        self.group, self.key, self._base, self._given = group, key, base, (*given, "settings")
        self._entries: dict[str, Entry] = {}
        _registries[group] = self

    def know(self, settings: Any) -> None:
        """Enters a settings class of the package; its module is imported when one is built."""
        if settings.__module__.startswith("hsi_se."):
            for name in get_args(settings.model_fields[self.key].annotation):
                self._enter(name, Entry(settings))

    def _enter(self, name: str, entry: Entry) -> None:
        self._entries[name] = entry
        self.__dict__.pop("_adapter", None)

    def register(self, name: str, entry: Entry) -> None:
        """Enters a factory under a name; ConfigError if its name, its arguments or its settings cannot be used."""
        place, factory, known = f"register_{self.group.rstrip('s')}({name!r})", entry.factory, self._entries.get(name)
        if not isinstance(name, str) or not re.fullmatch(r"[^\W\d]\w{0,99}", name):
            raise ConfigError(f"{place}: is not a name; begin with a letter, and use letters, digits and '_'")
        if not inspect.isroutine(factory) and not isinstance(factory, type):
            raise ConfigError(f"{place}: {factory!r} is not a class or function; decorate one that makes a module")
        plugin = _find_plugin(factory)
        if known is not None and (plugin is not None or known.settings is not entry.settings):
            before, is_another = known.plugin, getattr(known.factory, "__qualname__", "") != factory.__qualname__
            if before is None or plugin is None or before.origin != plugin.origin or (before == plugin and is_another):
                theirs = "hsi-se itself" if before is None else str(before)
                raise ConfigError(f"{place}: is already registered by {theirs}; choose another name")
        try:
            with warnings.catch_warnings(action="error"):  # as of a name that pydantic uses itself
                settings = self._make_settings(name, factory, entry)
        except HsiError as error:
            raise ConfigError(f"{place}: {error}") from None
        except Exception as error:
            raise ConfigError(f"{place}: its settings cannot be used ({_one_line(error)}); correct them") from None
        self._enter(name, replace(entry, settings=settings, plugin=plugin))

    def _make_settings(self, name: str, factory: Any, entry: Entry) -> Any:
        """Returns the settings class: the given one, one derived from it, or one made of the factory's arguments."""
        given, arguments = entry.settings, inspect.signature(factory, eval_str=entry.settings is None).parameters
        known = given.model_fields.get(self.key) if given else None
        if known is not None and name in get_args(known.annotation):
            return given
        if self.group == "attention" and not arguments.keys() & {"shape", "channels"}:
            raise ConfigError("has no argument shape or channels, by which it knows its features; add one")
        options = {each: argument for each, argument in arguments.items() if each not in self._given}
        fields: dict[str, Any] = {}
        for each, argument in {} if given else options.items():
            if argument.kind not in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY):
                raise ConfigError(f"{argument} cannot be a setting; name every argument, or give settings=CLASS")
            if argument.empty in (argument.annotation, argument.default):
                lack = "annotation" if argument.annotation is argument.empty else "default"
                raise ConfigError(f"argument {each} has no {lack}; write {each}: TYPE = VALUE")
            fields[each] = (argument.annotation, Field(default=argument.default, validate_default=True))
        is_of_base = given is not None and issubclass(given, self._base)
        for each in given.model_fields.keys() - (self._base.model_fields if is_of_base else ()) if given else fields:
            if each in (*self._given, *self._base.model_fields):
                raise ConfigError(f"{each} cannot be the name of a setting; choose another")
            if not arguments.keys() & {each, "settings"}:
                raise ConfigError(f"the setting {each} is not an argument of {factory.__qualname__}; add it")
        bases = (given or self._base,) if is_of_base or not given else (given, self._base)
        about = inspect.cleandoc(getattr(given or factory, "__doc__", None) or f"{name}, of a plugin.")
        title = "".join(part.capitalize() for part in name.split("_"))
        fields[self.key] = (Literal[name], ...)
        made = create_model(title, __base__=bases, __doc__=about, __module__=factory.__module__, **fields)
        for fact, value in entry.facts.items():
            setattr(made, fact, value)
        if self.group == "attention":
            made.model_validate({self.key: name})  # `info` compares the blocks with their defaults
        return made

    def find(self, name: str) -> Entry | None:
        """Returns the entry of a name; for an unknown one, of the package's modules and then of its entry point."""
        if name not in self._entries:
            import_own()
        if name not in self._entries and name in self._entry_points:
            self._load(name)
        return self._entries.get(name)

    def get(self, name: str) -> Entry:
        """Returns the entry of a registered name, with its factory if it has one."""
        if self._entries[name].factory is None:
            import_own()
        return self._entries[name]

    def list_entries(self) -> dict[str, Entry]:
        """Returns all entries, also those that must be imported first."""
        import_own()
        for name in sorted(self._entry_points.keys() - self._entries.keys()):
            self._load(name)
        return dict(self._entries)

    def list_settings(self) -> list[Any]:
        """Returns the settings classes that need no import."""
        return list(dict.fromkeys(entry.settings for entry in self._entries.values()))

    @functools.cached_property
    def _entry_points(self) -> dict[str, list[metadata.EntryPoint]]:
        found: dict[str, list[metadata.EntryPoint]] = {}
        for point in sorted({*metadata.entry_points(group=f"hsi_se.{self.group}")}):
            found.setdefault(point.name, []).append(point)
        return found

    def _load(self, name: str) -> None:
        names = [point.dist.name if point.dist else point.module for point in self._entry_points[name]]
        point, place = self._entry_points[name][0], f"{self.key} = {name}: of the installed package {names[0]}"
        if len(names) > 1:
            raise ConfigError(f"{place}, and of {names[1]}, too; uninstall one of them")
        try:
            spec = importlib.util.find_spec(point.module)
            digest = hashlib.sha256(Path(str(spec and spec.origin)).read_bytes()).hexdigest()
            plugin = Plugin(origin=names[0], version=point.dist.version if point.dist else None, digest=digest)
            with _importing(plugin):
                factory = point.load()
                if name not in self._entries:
                    self.register(name, Entry(None, factory))
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{place} cannot be loaded ({_one_line(error)}); correct or uninstall it") from None

    @functools.cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        union: Any = Union[tuple(self.list_settings())]  # noqa: UP007
        return TypeAdapter(Annotated[union, Discriminator(self.key)])

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, _schema: object, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        self.list_entries()
        return handler(self._adapter.core_schema)

    def validate(self, value: object) -> Any:
        """Returns the settings of a registered block or network; an unknown name is a mistake that lists them all."""
        name = value.get(self.key) if isinstance(value, Mapping) else getattr(value, self.key, None)
        if isinstance(name, str) and self.find(name) is None:
            names = tuple(dict.fromkeys([*self._entries, *self._entry_points]))
            choices = ", ".join(map(repr, names))
            text = f"{did_you_mean(name, names)}choose from {choices}; for one of your own, add --plugin FILE"
            raise mistake(text, key=self.key)
        return self._adapter.validate_python(value)

    def find_plugin(self, name: str) -> Plugin | None:
        """Returns the origin of a registered block or network, None for the package's own."""
        return self._entries[name].plugin

    def reduce(self, settings: BaseModel) -> tuple[Any, ...] | None:
        """Returns how another process restores settings, for which it loads their plugin; None for the own ones."""
        plugin = self.find_plugin(getattr(settings, self.key))
        values = {name: getattr(settings, name) for name in settings.model_fields_set}
        return None if plugin is None else (_restore, (self.group, values, plugin))


def import_own() -> None:
    """Imports the package's own blocks and networks, each of which enters."""
    for package in map(importlib.import_module, ("hsi_se.attention", "hsi_se.models")):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def find_registry(group: str) -> Registry:
    """Returns the registry of a group, which `config.model` makes."""
    if group not in _registries:
        import_own()
    return _registries[group]


def _restore(group: str, values: dict[str, Any], plugin: Plugin) -> Any:
    if plugin.source:
        _import_file(plugin, path=plugin.origin)
    return find_registry(group).validate(values)


def list_plugins(model: Any) -> dict[str, Plugin]:
    """Returns the origin of a network and of each of its blocks, by `GROUP NAME`, without the package's own."""
    blocks = getattr(model, "attention", {}).values()
    used = [("networks", model.name), *(("attention", block.kind) for block in blocks)]
    found = {f"{group} {name}": _registries[group].find_plugin(name) for group, name in used}
    return {name: plugin for name, plugin in found.items() if plugin is not None}


def check_plugins(plugins: dict[str, Plugin]) -> dict[str, Plugin]:
    """Returns the plugins that a run has recorded; RunError if one is not loaded, or has another source."""
    for key, plugin in plugins.items():
        group, _, name = key.partition(" ")
        what = f"{group.rstrip('s')} {name!r}: is of {plugin}"
        entry = _registries[group].find(name) if group in _registries else None
        if entry is None or entry.plugin is None:
            remedy = f"add --plugin {plugin.origin} (in Python, hsi_se.load_plugin)"
            remedy = remedy if plugin.version is None else f"pip install {plugin.origin}=={plugin.version}"
            raise RunError(f"{what}, which is not loaded; {remedy}")
        if entry.plugin.digest != plugin.digest:
            raise RunError(f"{what}, and {entry.plugin} is loaded; use the version of the training, or train again")
    return plugins


def register_attention(
    name: str, *, settings: type[BaseModel] | None = None, needs_2d: bool = False
) -> Callable[[Factory], Factory]:
    """Makes a factory of modules an attention block, which a config then names as `{kind: NAME}`.

    The factory's argument `shape` is that of the features at the point, `(c, h, w)` or `(c, d, h, w)`. Instead of it,
    or with it, an argument `channels` is c, and `is_3d` whether there is a spectral axis. The module keeps the shape.

    Args:
        name: letters, digits and `_`.
        settings: a pydantic class whose fields are the factory's other arguments, all with defaults. By default they
            are made of these arguments, which then need an annotation and a default.
        needs_2d: whether the block cannot handle a spectral axis.

    Raises:
        ConfigError: the name is taken, or the arguments or settings cannot be used.
    """

    def enter(factory: Factory) -> Factory:
        facts = {"needs_2d": True} if needs_2d else {}
        find_registry("attention").register(name, Entry(settings, factory, facts=facts))
        return factory

    return enter


def register_network(
    name: str,
    *,
    settings: type[BaseModel] | None = None,
    points: Sequence[str] | Mapping[str, str] = (),
    points_3d: Sequence[str] = (),
    input: Literal["2d", "3d"] = "2d",
) -> Callable[[Factory], Factory]:
    """Makes a factory of modules a network, which a config then names as `model: {name: NAME}`.

    The factory's arguments are `num_bands`, `patch_size` and `num_classes`, and its settings. The module returns logits
    `(n, C)`.

    Args:
        name: letters, digits and `_`.
        settings: a pydantic class, as for `register_attention`.
        points: submodules after which a config may place attention, or the names of points, each with its submodule.
        points_3d: the points whose features have a spectral axis, `(n, c, d, h, w)`.
        input: `2d` for patches `(n, k, p, p)` of k components, `3d` for `(n, 1, k, p, p)`.

    Raises:
        ConfigError: the name is taken, or the arguments or settings cannot be used.
    """
    named = dict(points) if isinstance(points, Mapping) else {point: point for point in points}

    def enter(factory: Factory) -> Factory:
        facts = {"points": tuple(named), "points_3d": tuple(points_3d)}
        find_registry("networks").register(name, Entry(settings, factory, points=named, input=input, facts=facts))
        return factory

    return enter


@checked()
def load_plugin(path: str | Path) -> None:
    """Imports a Python file that registers attention blocks or networks, as `--plugin` does.

    It may import installed packages, but no other file of its folder. ConfigError if it cannot be read, fails, or
    registers nothing.
    """
    try:
        source = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"--plugin {path}: cannot be read ({error.strerror}); name a Python file") from None
    plugin = Plugin(origin=Path(path).name, digest=hashlib.sha256(source).hexdigest(), source=source)
    _import_file(plugin, path=str(path))


def _import_file(plugin: Plugin, *, path: str) -> None:
    name = f"hsi_se_plugin_{plugin.digest}"
    if name in sys.modules:
        return
    sys.modules[name] = module = types.ModuleType(name)
    module.__file__ = path
    try:
        with _importing(plugin):
            exec(compile(plugin.source, path, "exec"), vars(module))  # what runs is what the digest is of
        if not any(entry.plugin == plugin for each in _registries.values() for entry in each._entries.values()):
            raise ConfigError('registers nothing; decorate a block with @hsi_se.register_attention("NAME")')
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f"line {getattr(error, 'lineno', None) or lines[-1]}: " if lines or hasattr(error, "lineno") else ""
        what = str(error) if isinstance(error, HsiError) else f"{_one_line(error)}; correct the file"
        raise ConfigError(f"--plugin {path}: {where}{what}") from None


@contextmanager
def _importing(plugin: Plugin) -> Iterator[None]:
    import_own()  # before: what enters from here on is of the plugin
    token = _loading.set(plugin)
    try:
        yield
    finally:
        _loading.reset(token)


def _find_plugin(factory: Any) -> Plugin | None:
    """Returns the origin of a factory, what is imported now or the file of its module; None for the package's own."""
    module = str(factory.__module__)
    if module.startswith("hsi_se.") or _loading.get() is not None:
        return _loading.get()
    file = Path(getattr(sys.modules.get(module), "__file__", None) or "")
    try:
        source = file.read_bytes() if file.is_file() else inspect.getsource(factory).encode()  # of a notebook's cell
    except (OSError, TypeError):
        source = repr(factory).encode()
    return Plugin(origin=file.name or module, digest=hashlib.sha256(source).hexdigest())


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
