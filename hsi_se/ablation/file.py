"""An ablation as a YAML file: a base config, variants of it as overrides, and seeds."""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PositiveInt, StringConstraints, model_validator

from hsi_se.config.base import Seed, Settings, mistake, parse_seeds, unknown
from hsi_se.config.experiment import Config, ConfigName
from hsi_se.config.yaml_file import Override, Places, find_place, load_config, parse_settings, read_text
from hsi_se.errors import ConfigError

_SHARED = ("scene", "split", "seed", "name")  # sections that make pairs of a seed's runs
_NONE = "none"


def _read_seeds(value: object) -> object:
    if isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return parse_seeds(str(value))
        except ConfigError as error:
            raise mistake(str(error).partition(": ")[2]) from None
    return value


Name = Annotated[str, StringConstraints(pattern=r"^\w[\w.+,=@ -]*$", max_length=80)]
Overrides = dict[str, Any]


class Grid(Settings):
    """No attention, and one variant for every set of up to `up_to` points and every kind of block."""

    points: tuple[str, ...] = Field(min_length=1)
    kinds: tuple[str, ...] = Field(min_length=1)
    up_to: PositiveInt = 1

    def expand(self) -> dict[str, Overrides]:
        """Returns the variants by name: `fold+conv2d se` has that block at these two points."""
        variants: dict[str, Overrides] = {_NONE: {"model.attention": {}}}
        for kind, size in itertools.product(self.kinds, range(1, self.up_to + 1)):
            for points in itertools.combinations(self.points, size):
                block = {point: {"kind": kind} for point in points}
                variants[f"{'+'.join(points)} {kind}"] = {"model.attention": block}
        return variants


class AblationSettings(Settings):
    """What an ablation file holds."""

    name: ConfigName = Field(default="", description="the file's name unless given")
    base: str = Field(description="a config, beside this file, in the folder above it, or below the current")
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(_read_seeds), Field(min_length=1)]
    threads: PositiveInt = Field(
        default=1,
        le=256,
        description="of every run, on one machine or many, so that all compute the same numbers",
    )
    set: Overrides = Field(default={}, description="dotted keys laid over the base for all variants")
    scenes: dict[Name, Overrides] = Field(default={}, description="what to lay over the base for each scene")
    variants: dict[Name, Overrides] = Field(default={}, description="what to lay over the base for each")
    grid: Grid | None = None
    baseline: str | None = Field(default=None, description="what the others are compared with; the first")

    @model_validator(mode="after")
    def _variants_are_named(self) -> Self:
        names = self.list_variants()
        if len(names) < 2:
            raise mistake("give two variants or more, or a grid", key="variants")
        if self.baseline is not None and self.baseline not in names:
            raise mistake(unknown(self.baseline, "variant", tuple(names)), key="baseline")
        if len({*self.seeds}) < len(self.seeds):
            raise mistake("names a seed twice", key="seeds")
        return self

    def list_variants(self) -> dict[str, Overrides]:
        """Returns the variants that are named, then those of the grid that have other names."""
        grid = {} if self.grid is None else self.grid.expand()
        return self.variants | {name: changes for name, changes in grid.items() if name not in self.variants}


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One training of an ablation; `scene` is empty where the file names none."""

    scene: str
    variant: str
    seed: int
    config: Config

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.scene, self.variant, f"seed {self.seed}")))


@dataclass(frozen=True, eq=False)
class Ablation:
    """An ablation file with every run it asks for.

    Attributes:
        name: of the file.
        digest: SHA-256 over what all runs share, seeds and variants aside.
        baseline: the variant that the others are compared with.
        seeds, threads: as in the file.
        variants: what each lays over the base, by name.
        scenes: their names; one empty name where the file has none.
        runs: seed by seed, all variants of one before the next.
    """

    name: str
    digest: str
    baseline: str
    seeds: tuple[int, ...]
    threads: int
    variants: Mapping[str, Overrides]
    scenes: tuple[str, ...]
    runs: tuple[PlannedRun, ...]


def load_ablation(path: str | Path, overrides: Sequence[str] = ()) -> Ablation:
    """Returns the ablation that a YAML file describes; `overrides` `a.b=c` are laid over its base.

    All variants of a seed share scene, split and seed, so that their results are pairs.

    Raises:
        ConfigError: as `load_config`; or a variant is another one under a second name, or changes what
            all must share. The message says where in which file.
    """
    path = Path(path)
    settings, places = parse_settings(AblationSettings, read_text(path), path=path)
    base = _find_base(settings.base, path, places)
    source = _Source(places)
    for override in overrides:
        if override.partition("=")[0].strip() == "seed":
            raise ConfigError(f"--set {override}: has no effect; write seeds: in {path}")
    shared = [*source.overrides(settings.set, "set"), *(Override.parse(text) for text in overrides)]
    given = settings.list_variants()
    runs: list[PlannedRun] = []
    digests = []
    for scene, of_scene in (settings.scenes or {"": {}}).items():
        below = [*shared, *source.overrides(of_scene, "scenes", scene)]
        common = load_config(base, below)
        digests.append(common.model_dump(mode="json", exclude={"name", "seed"}))
        configs: dict[str, Config] = {}
        for name, of_variant in given.items():
            config = load_config(base, [*below, *source.overrides(of_variant, "variants", name)])
            for key in _SHARED:
                if getattr(config, key) != getattr(common, key):
                    place = source.place("variants", name, key=key)
                    raise ConfigError(
                        f"{place}: variants.{name}: changes {key}, which all variants of a seed must share "
                        "to be compared; write it under set: or scenes:"
                    )
            twin = next((other for other, known in configs.items() if known.digest == config.digest), None)
            if twin is not None:
                raise ConfigError(
                    f"{source.place('variants', name)}: variants.{name}: is the same as {twin}, setting by "
                    "setting; leave one of them out"
                )
            configs[name] = config
        runs += [
            PlannedRun(scene, name, seed, config.model_copy(update={"seed": seed, "name": _to_name(name)}))
            for seed in settings.seeds
            for name, config in configs.items()
        ]
    text = json.dumps({"threads": settings.threads, "shared": digests}, sort_keys=True)
    return Ablation(
        name=settings.name or "ablation",
        digest=hashlib.sha256(text.encode()).hexdigest(),
        baseline=settings.baseline or next(iter(given)),
        seeds=settings.seeds,
        threads=settings.threads,
        variants=given,
        scenes=tuple(settings.scenes) or ("",),
        runs=tuple(runs),
    )


@dataclass(frozen=True, eq=False)
class _Source:
    """Where in an ablation file each of its settings is written."""

    places: Places

    def place(self, *names: str, key: str = "") -> str:
        """`file:line:column` of an entry; of the dotted key in it that starts with `key`, if there is one."""
        if names not in self.places:  # a variant of the grid
            return self.places[("grid",)]
        inside = (keys for keys in self.places if keys[:-1] == names and keys[-1].split(".")[0] == key)
        return self.places[next(inside, names)]

    def overrides(self, values: Overrides, *names: str) -> list[Override]:
        def make(key: str, value: object) -> Override:
            if names not in self.places:
                return Override(key, value, {(): f"{self.places[('grid',)]}: grid: {names[-1]}"})
            keys, label = (*names, key), ".".join(names)
            written = {(): find_place(self.places, keys)} | {
                each[len(keys) :]: place for each, place in self.places.items() if each[: len(keys)] == keys
            }
            return Override(key, value, {below: f"{place}: {label}" for below, place in written.items()})

        return [make(key, value) for key, value in values.items()]


def _find_base(base: str, path: Path, places: Places) -> Path:
    candidates = [folder / base for folder in (path.parent, path.parent.parent, Path())]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise ConfigError(
            f"{places[('base',)]}: base = {base!r}: no such config beside this file, in the folder above it, "
            "or here; check the path"
        )
    return found


def _to_name(variant: str) -> str:
    """A config's name may hold less than a variant's."""
    return "".join(letter if letter.isalnum() or letter in "_.+-" else "_" for letter in variant)
