"""A study as a YAML file: a base config and a search space over its settings."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Field, PositiveInt, Tag

from hsi_se.ablation.file import DEFAULT_THREADS, Overrides, find_base, override
from hsi_se.config.base import Seed, Settings, _tag_by_shape, mistake
from hsi_se.config.experiment import Config, ConfigName
from hsi_se.config.split import AllSplit, BlocksSplit, FieldsSplit, FoldsSplit
from hsi_se.config.yaml_file import Override, find_place, parse_config, parse_settings, read_text
from hsi_se.errors import ConfigError

_FIXED = ("scene", "split", "seed")  # decide which pixels are tested
_NO_EFFECT = ("name", "prediction.calibration", "train.checkpoint_every_s")
Bounds = tuple[int | float, int | float]


class Range(Settings):
    """A range of numbers, both ends included; whole numbers if both ends are written as such."""

    log: Bounds | None = None  # equal chances for equal ratios
    linear: Bounds | None = None

    def check_together(self) -> None:
        if (self.log is None) == (self.linear is None):
            raise mistake("write {log: [1e-4, 1e-2]} or {linear: [0, 0.5]}")
        low, high = self.bounds
        if low >= high or (self.log is not None and low <= 0):
            above = ", above 0" if self.log is not None else ""
            raise mistake(f"write two numbers in ascending order{above}", key="linear" if self.log is None else "log")

    @property
    def bounds(self) -> Bounds:
        return self.log or self.linear or (0, 0)


Choice = Annotated[
    Annotated[tuple[Any, ...], Field(min_length=2), Tag("a value")] | Annotated[Range, Tag("a section")],
    Discriminator(_tag_by_shape),
]


class StudySettings(Settings):
    """The settings of a study file."""

    name: ConfigName = ""  # the file's name unless given
    base: str  # a config beside this file, in its parent folder or in the working directory
    trials: PositiveInt
    seed: Seed = 0  # of the search
    threads: PositiveInt = Field(default=DEFAULT_THREADS, le=256)  # of each trial
    set: Overrides = Field(default={})  # dotted keys that override the base
    search: dict[str, Choice] = Field(min_length=1)  # dotted keys, each with a list of values or a range


@dataclass(frozen=True, eq=False)
class Study:
    """A study; the digest is of everything but the number of trials, which may be raised later."""

    name: str
    digest: str
    base: Path
    text: str  # of the base, which may be out of the reach of workers
    shared: tuple[Override, ...]
    given: StudySettings
    split: Any  # of every trial: the base's, with the distance that the largest patches need
    folds: "tuple[Study, ...]" = ()  # a search for each, if the split has several test sets

    def config_of(self, values: Mapping[str, Any]) -> Config:
        """Returns the config of a trial; ConfigError if the values do not fit together."""
        changes = [Override(key, value, {(): f"search: {key}"}) for key, value in values.items()]
        config = parse_config(self.text, [*self.shared, *changes], path=self.base)
        return config.model_copy(update={"split": self.split})


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Returns the study that a YAML file describes; `overrides` such as `a.b=c` change its base.

    With several folds, it has a search for each. ConfigError as in `load_config`, or if a setting cannot be searched, a
    value of one is refused, the base has no test set, or its folds are drawn more than once.
    """
    path = Path(path)
    given, places = parse_settings(StudySettings, read_text(path), path=path)
    base_path = find_base(given.base, path, places)
    shared = [*override(places, given.set, "set"), *(Override.parse(text) for text in overrides)]
    text = read_text(base_path)
    base = parse_config(text, shared, path=base_path)
    where = find_place(places, ("base",))
    if isinstance(base.split, AllSplit):
        raise ConfigError(f"{where}: split.kind = all: a search needs test pixels; write another kind, such as folds")
    if isinstance(base.split, FoldsSplit) and base.split.repeats > 1:
        remedy = "write set: {split.repeats: 1}"
        raise ConfigError(f"{where}: split.repeats = {base.split.repeats}: a search draws the folds once; {remedy}")
    wider, digests = 0, []
    for key, choice in given.search.items():
        place = find_place(places, ("search", key))
        for reason, refused in (("decides which pixels are tested", _FIXED), ("has no effect on a search", _NO_EFFECT)):
            if any(f"{key}.".startswith(f"{each}.") for each in refused):
                raise ConfigError(f"{place}: search.{key}: {reason}; write it under set:")
        if twice := next((each for each in shared if f"{each.key}.".startswith(f"{key}.")), None):
            raise ConfigError(f"{twice.place}: {twice.key}: is replaced by search.{key}; leave one of them out")
        ends = choice.bounds if isinstance(choice, Range) else choice
        found = [parse_config(text, [*shared, *override(places, {key: end}, "search")], path=base_path) for end in ends]
        digests += (own := [config.digest for config in found])
        if len({*own}) < len(own):
            raise ConfigError(f"{place}: search.{key}: two values give the same settings; remove one of them")
        wider += max(0, *(config.default_buffer - base.default_buffer for config in found))
    split = base.split
    if isinstance(split, BlocksSplit | FieldsSplit | FoldsSplit) and split.buffer == base.default_buffer:
        split = split.model_copy(update={"buffer": base.default_buffer + wider})
    search = given.model_dump(mode="json", exclude={"trials", "name", "base"})

    def make(base: Config) -> Study:
        facts = {"base": base.digest, "study": search, "found": digests}  # of plugins, the sources too
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return Study(given.name or "study", digest, base_path, text, tuple(shared), given, base.split)

    whole = base.model_copy(update={"split": split})
    folds = whole.list_folds()
    return replace(make(whole), folds=tuple(map(make, folds)) if len(folds) > 1 else ())
