"""The choice that somebody who mistyped a name, or used another tool's word for it, probably meant."""

import difflib
import functools
import re
import tomllib
from collections.abc import Sequence
from importlib import resources


@functools.cache
def read_other_words() -> dict[str, dict[str, str]]:
    """Returns the words of other tools, each with ours: of values, settings, options and errors."""
    return tomllib.loads(resources.files("hsi_se.config").joinpath("other_words.toml").read_text("utf-8"))


def find_nearest(name: str, choices: Sequence[str]) -> str | None:
    """Returns the choice nearest to a name, or None where none is near; upper case makes no difference."""
    usual = read_other_words()["values"].get(squash(name))
    if usual in choices:
        return usual
    same = (choice for choice in choices if squash(choice) == squash(name))
    folded = {choice.casefold(): choice for choice in choices}
    lower = name.casefold()
    start = (
        folded[each]
        for each in folded
        if min(len(each), len(lower)) > 2 and (each.startswith(lower) or lower.startswith(each))
    )
    near = difflib.get_close_matches(lower, folded, n=1)
    return next(same, None) or next(start, None) or (folded[near[0]] if near else None)


def did_you_mean(name: str, choices: Sequence[str]) -> str:
    """Returns `did you mean 'x'? ` for the nearest choice, or an empty string."""
    near = find_nearest(name, choices)
    return "" if near is None else f"did you mean {near!r}? "


def find_setting(name: str, settings: Sequence[str], *, here: Sequence[str] = ()) -> str | None:
    """Returns the dotted setting, one of `settings` in any section, that an unknown one, `name`, probably means.

    Its own section has the settings `here`, without the section's name.
    """
    section, _, key = name.rpartition(".")
    if name in settings or (section and section not in settings):
        return None  # it is of a section of another kind, or of one whose name the user chose
    usual = read_other_words()["settings"].get(squash(key), "")
    if usual.rpartition(".")[2] in here:
        return f"{section}.{usual.rpartition('.')[2]}".lstrip(".")
    elsewhere = [setting for setting in settings if setting.rpartition(".")[0] != section or not section]
    namesakes = (setting for setting in elsewhere if squash(setting.rpartition(".")[2]) == squash(key))
    near = difflib.get_close_matches(name, elsewhere, n=1, cutoff=0.75)
    return next(iter([*filter(elsewhere.__contains__, [usual]), *namesakes, *near]), None)


def squash(name: str) -> str:
    """Returns a name in lower case, without spaces, dashes and underscores."""
    return re.sub(r"[\s_-]", "", name).casefold()
