"""An ablation as a YAML file: a base config, variants of it as overrides, and seeds; or seeds alone."""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, StringConstraints, model_validator

from hsi_se.config.base import Seed, Settings, mistake, parse_seeds, unknown
from hsi_se.config.experiment import Config, ConfigName
from hsi_se.config.split import FoldsSplit
from hsi_se.config.yaml_file import Override, Places, find_place, parse_settings, read_config, read_settings, read_text
from hsi_se.errors import ConfigError

DEFAULT_THREADS = 1
_SHARED = ("scene", "split")  # what the runs of a seed must share to form pairs
_GIVEN = {"seed": "write seeds: in the ablation file", "name": "a run has the name of its variant"}
_NONE = "none"


def _read_seeds(value: object) -> object:
    if isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return parse_seeds(str(value))
        except ConfigError as error:
            raise mistake(str(error).partition(": ")[2]) from None
    return value


def _check_reach(value: float) -> float:
    if not 0 < value <= 1:
        raise mistake("an accuracy is a fraction above 0 and up to 1; write 0.95 for 95 %")
    return value


Name = Annotated[str, StringConstraints(pattern=r"^\w[\w.+,=@ -]*$", max_length=80)]
Overrides = dict[str, Any]


class Grid(Settings):
    """A variant without attention, and one for each set of up to `up_to` points and each kind of block."""

    points: tuple[str, ...] = Field(min_length=1)
    kinds: tuple[str, ...] = Field(min_length=1)
    up_to: PositiveInt = 1

    def expand(self) -> dict[str, Overrides]:
        """Returns the variants by name: `fold+conv2d se` has that block at both points."""
        variants: dict[str, Overrides] = {_NONE: {"model.attention": {}}}
        for kind, size in itertools.product(self.kinds, range(1, self.up_to + 1)):
            for points in itertools.combinations(self.points, size):
                block = {point: {"kind": kind} for point in points}
                variants[f"{'+'.join(points)} {kind}"] = {"model.attention": block}
        return variants


class AblationSettings(Settings):
    """The settings of an ablation file."""

    name: ConfigName = ""  # the file's name unless given
    base: str  # a config beside this file, in its parent folder or in the working directory
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(_read_seeds), Field(min_length=1)]
    # Threads of each run, the same on every machine so that all compute the same numbers.
    threads: PositiveInt = Field(default=DEFAULT_THREADS, le=256)
    set: Overrides = Field(default={})  # dotted keys that override the base for all variants
    scenes: dict[Name, Overrides] = Field(default={})  # overrides of the base for each scene
    variants: dict[Name, Overrides] = Field(default={})  # overrides of the base for each variant
    grid: Grid | None = None
    baseline: str | None = None  # the variant the others are compared with; by default the first
    # The validation accuracy, a fraction, until which the report counts epochs; by default the lowest of the variants'
    # best mean accuracies.
    reach: Annotated[float, AfterValidator(_check_reach)] | None = None

    @model_validator(mode="after")
    def _variants_are_named(self) -> Self:
        names = self.list_variants()
        if len(names) < 2:
            raise mistake("give at least two variants, or a grid", key="variants")
        if self.baseline is not None and self.baseline not in names:
            raise mistake(unknown(self.baseline, "variant", tuple(names)), key="baseline")
        if len({*self.seeds}) < len(self.seeds):
            raise mistake("names a seed twice", key="seeds")
        return self

    def list_variants(self) -> dict[str, Overrides]:
        """Returns the named variants, then those of the grid whose names are not taken."""
        grid = {} if self.grid is None else self.grid.expand()
        return self.variants | {name: changes for name, changes in grid.items() if name not in self.variants}


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of an ablation; `scene` is empty where the file names no scenes.

    With a split into folds it stands for the runs of all folds, its parts, which are pooled.
    """

    scene: str
    variant: str
    seed: int
    config: Config
    whole: "PlannedRun | None" = None  # of one fold

    @property
    def fold(self) -> int | None:
        return self.config.split.fold if isinstance(self.config.split, FoldsSplit) else None

    @cached_property
    def parts(self) -> tuple["PlannedRun", ...]:
        """What is trained: the runs of all folds, or this run itself."""
        configs = self.config.list_folds()
        return tuple(replace(self, config=each, whole=self) for each in configs) if len(configs) > 1 else (self,)

    def __str__(self) -> str:
        return name_run(self.scene, self.variant, self.seed, self.fold)


def name_run(scene: str, variant: str, seed: int, fold: int | None) -> str:
    return ", ".join(filter(None, (scene, variant, f"seed {seed}", f"fold {fold}" if fold else "")))


@dataclass(frozen=True, eq=False)
class Ablation:
    """An ablation with all its runs; one with a single variant repeats a config over seeds.

    The digest is the SHA-256 of the settings that all runs share; seeds and variants are left out.
    """

    name: str
    digest: str
    baseline: str  # the variant that the others are compared with
    seeds: tuple[int, ...]
    threads: int
    variants: Mapping[str, Overrides]  # by name
    scenes: tuple[str, ...]  # their names; a single empty one if the file names none
    runs: tuple[PlannedRun, ...]  # ordered by scene, then seed, then variant
    reach: float | None = None  # see `AblationSettings`

    @cached_property
    def parts(self) -> tuple[PlannedRun, ...]:
        """What is trained: each run, or the runs of its folds."""
        return tuple(part for run in self.runs for part in run.parts)

    @property
    def has_folds(self) -> bool:
        return len(self.parts) > len(self.runs)

    @property
    def is_of_seeds(self) -> bool:
        """Whether there is a single variant, so that there is nothing to compare."""
        return len(self.variants) == 1


def repeat_over_seeds(config: Config, seeds: Sequence[int]) -> Ablation:
    """Returns the ablation with one variant that trains a config once per seed.

    Each seed draws its own split unless `split.seed` is set. The variant is named after the config. Folds, whose
    classifiers deliver no map, are trained without calibration unless the config sets one.
    """
    if len(config.list_folds()) > 1:
        config = config.with_fold(None).without_calibration()
    name = config.name.lstrip(".+-") or "run"
    return Ablation(
        name=name,
        digest=_digest(DEFAULT_THREADS, [config]),
        baseline=name,
        seeds=tuple(seeds),
        threads=DEFAULT_THREADS,
        variants={name: {}},
        scenes=("",),
        runs=tuple(PlannedRun("", name, seed, config.model_copy(update={"seed": seed})) for seed in seeds),
    )


def load_ablation(
    given: Mapping[str, Any] | str | os.PathLike[str], overrides: Sequence[str | Override] = ()
) -> Ablation:
    """Returns the ablation that a YAML file or a mapping describes; `overrides` such as `a.b=c` change its base.

    The base of a mapping may be a config of any kind, as for `read_config`.

    All variants of a seed share the scene, the split and the seed, so that their results form pairs. ConfigError as in
    `load_config`, or if two variants are the same, or a variant changes a setting that all must share.
    """
    base: object
    if isinstance(given, Mapping):
        path, base = "ablation", given.get("base")
        written = dict(given) if base is None else {**given, "base": "a config"}
        settings, places = read_settings(AblationSettings, written, name=path)
    elif isinstance(given, str | os.PathLike):
        path = os.fspath(given)
        settings, places = parse_settings(AblationSettings, read_text(path), path=Path(path))
        base = find_base(settings.base, Path(path), places)
    else:
        raise ConfigError(f"ablation = {given!r}: is not an ablation; give a YAML file or a mapping")
    changes = [Override.parse(each) if isinstance(each, str) else each for each in overrides]
    if settings.scenes and any(change.key == "scene" for change in changes):
        raise ConfigError(f"{path}: scenes: has no effect with scene=, which takes their place; leave one of them out")
    shared = [*override(places, settings.set, "set"), *changes]
    variants = settings.list_variants()
    runs: list[PlannedRun] = []
    bases = []
    for scene, of_scene in (settings.scenes or {"": {}}).items():
        below = _refuse_given([*shared, *override(places, of_scene, "scenes", scene)])
        common = read_config(base, below)
        if isinstance(common.split, FoldsSplit) and common.split.repeats > 1:
            raise ConfigError(f"{path}: split.repeats: has no effect in an ablation; write one seed for each draw")
        bases.append(common)
        configs: dict[str, Config] = {}
        for name, of_variant in variants.items():
            changes = _refuse_given(override(places, of_variant, "variants", name))
            config = read_config(base, [*below, *changes]).without_calibration()
            where = f"{places.get(('variants', name)) or places[('grid',)]}: variants.{name}"
            for key in _SHARED:
                if getattr(config, key) != getattr(common, key):
                    place = next((change.place for change in changes if change.keys[0] == key), where)
                    raise ConfigError(
                        f"{place}: changes {key}, which all variants of a seed must share "
                        "to be comparable; write it under set: or scenes:"
                    )
            twin = next((other for other, known in configs.items() if known.digest == config.digest), None)
            if twin is not None:
                raise ConfigError(f"{where}: has the same settings as {twin}; remove one of them")
            configs[name] = config.model_copy(update={"name": re.sub(r"[^\w.+-]", "_", name)})
        runs += [
            PlannedRun(scene, name, seed, config.model_copy(update={"seed": seed}))
            for seed in settings.seeds
            for name, config in configs.items()
        ]
    return Ablation(
        name=settings.name or "ablation",
        digest=_digest(settings.threads, bases),
        baseline=settings.baseline or next(iter(variants)),
        seeds=settings.seeds,
        threads=settings.threads,
        variants=variants,
        scenes=tuple(settings.scenes) or ("",),
        runs=tuple(runs),
        reach=settings.reach,
    )


def _refuse_given(overrides: list[Override]) -> list[Override]:
    for override in overrides:
        if override.key in _GIVEN:
            raise ConfigError(f"{override.place}: {override.key}: has no effect; {_GIVEN[override.key]}")
    return overrides


def _digest(threads: int, configs: Sequence[Config]) -> str:
    shared = [config.model_dump(mode="json", exclude={"name", "seed"}) for config in configs]
    text = json.dumps({"threads": threads, "shared": shared}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def override(places: Places, values: Overrides, *names: str) -> list[Override]:
    """Returns the overrides in an entry, each with the places of its parts in the file."""
    overrides = []
    for key, value in values.items():
        keys, label = (*names, key), ".".join(names)
        written: Places
        if names not in places:
            written = {(): f"{places[('grid',)]}: grid: {names[-1]}"}
        else:
            found = {(): find_place(places, keys)} | {
                each[len(keys) :]: place for each, place in places.items() if each[: len(keys)] == keys
            }
            written = {below: f"{place}: {label}" for below, place in found.items()}
        overrides.append(Override(key, value, written))
    return overrides


def find_base(base: str, path: Path, places: Places) -> Path:
    for folder in (path.parent, path.parent.parent, Path()):
        if (found := folder / base).is_file() and found.resolve() != path.resolve():
            return found
    problem = "no such config beside this file, in its parent folder or in the working directory"
    raise ConfigError(f"{places[('base',)]}: base = {base!r}: {problem}; check the path")
