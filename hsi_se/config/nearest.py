"""The choice that somebody who mistyped a name, or used another tool's word for it, probably meant."""

import difflib
import re
from collections.abc import Sequence

# Common names in this field, spelt as `_squash` returns them.
_VALUES = {"gpu": "cuda", "bf16": "bfloat16", "fp32": "float32", "squeezeexcite": "se", "rf": "forest"}
_SETTINGS = {
    "amp": "train.precision",
    "arch": "model.name",
    "attn": "model.attention",
    "augment": "train.flips",
    "augmentation": "train.flips",
    "backbone": "model.name",
    "batch": "train.batch_size",
    "bs": "train.batch_size",
    "dataset": "scene",
    "decay": "train.weight_decay",
    "droprate": "model.dropout",
    "ema": "train.weight_averaging",
    "lr": "train.learning_rate",
    "ncomponents": "reduction.components",
    "network": "model.name",
    "nepochs": "train.epochs",
    "numcomponents": "reduction.components",
    "numepochs": "train.epochs",
    "patch": "patch.size",
    "patchsize": "patch.size",
    "pca": "reduction.components",
    "randomstate": "seed",
    "scheduler": "train.schedule",
    "testratio": "split.train",
    "testsize": "split.train",
    "trainratio": "split.train",
    "trainsize": "split.train",
    "valratio": "split.validation",
    "valsize": "split.validation",
    "wd": "train.weight_decay",
    "window": "patch.size",
    "windowsize": "patch.size",
}


def find_nearest(name: str, choices: Sequence[str], *, cutoff: float = 0.6) -> str | None:
    """Returns the choice nearest to a name, or None where none is near; upper case makes no difference."""
    usual = _VALUES.get(_squash(name))
    if usual in choices:
        return usual
    same = (choice for choice in choices if _squash(choice) == _squash(name))
    folded = {choice.casefold(): choice for choice in choices}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=cutoff)
    return next(same, None) or (folded[near[0]] if near else None)


def did_you_mean(name: str, choices: Sequence[str]) -> str:
    """Returns `did you mean 'x'? ` for the nearest choice, or an empty string."""
    near = find_nearest(name, choices)
    return "" if near is None else f"did you mean {near!r}? "


def find_setting(name: str, settings: Sequence[str]) -> str | None:
    """Returns the one of some dotted settings that a name probably stands for, whatever its section."""
    section, _, key = name.rpartition(".")
    if name in settings or (section and section not in settings):
        return None  # it is of a section of another kind, or of one whose name the user chose
    last = _squash(key)
    usual = _SETTINGS.get(last, "")
    here = f"{section}.{usual.rpartition('.')[2]}"
    if usual in settings:
        return here if here in settings else usual
    namesakes = (setting for setting in settings if _squash(setting.rpartition(".")[2]) == last)
    return next(namesakes, None) or find_nearest(name, settings, cutoff=0.75)


def _squash(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()
