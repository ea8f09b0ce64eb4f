"""Damage by structure: files of runs in which a part is missing, or has another type, shape or value.

Every damaged file is opened by every command that reads it, which ends well or in one line.
"""

import contextlib
import copy
import io
import json
import math
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML
from safetensors import safe_open
from safetensors.torch import save

from hsi_se.cli.main import main

VALUES: tuple[Any, ...] = (None, "text", -1, 0, 2**31, 2**70, 1.5, math.nan, 1e308, True, [], {}, [[[1]]])
_CONTENTS = {"nothing": b"", "null": b"null", "a list": b"[]", "no keys": b"{}", "no text": b"\xff\xfe\0"}
_MAP, _EXPORT = ("map", "--probabilities", "--out", "OUT"), ("export", "--format", "torch", "--out", "OUT.pt2")
_OPEN = (("eval",), _MAP, ("explain",), _EXPORT)
# The commands that read each file, by the kind of the folder; they write beside it.
COMMANDS: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {
    "run": {
        "config.yaml": (*_OPEN, ("report",)),
        "record.json": (*_OPEN, ("report",), ("watch",)),
        "split.safetensors": (("eval",), ("explain",)),
        "bundle.json": (*_OPEN, ("report",)),
        "bundle.safetensors": _OPEN,
        "report.json": (("report",),),
        "explorer.safetensors": (("report",),),
        "explain.json": (("report",),),
        "explain.safetensors": (("report",),),
        "progress.jsonl": (("watch",),),
        "map/map.json": (("map",),),
    },
    "begun": dict.fromkeys(("config.yaml", "progress.jsonl", "split.safetensors"), (("resume",), ("watch",))),
    "folds": {
        **dict.fromkeys(("fold-1/report.json", "fold-1/predictions.safetensors", "fold-1/explorer.safetensors"),
                        (("eval",),)),
        **dict.fromkeys(("fold-2/mapping_cost.json", "fold-2/record.json", "fold-2/bundle.json"), (("eval",),)),
    },
    "ablation": {
        "ablation.json": (("report",), ("explain",), ("watch",)),
        "plan.json": (("watch",),),
        "runs/se/seed-0/record.json": (("explain",),),
    },
}  # fmt: skip

Damage = tuple[str, Callable[[], bytes]]  # what it is, and how it is made


def list_damages(path: Path) -> Iterator[Damage]:
    """Yields every change of the structure of a file."""
    good = path.read_bytes()
    yield from ((f"is {name}", partial(bytes, content)) for name, content in _CONTENTS.items())
    yield "is cut", lambda: good[: len(good) // 2]
    if path.suffix == ".safetensors":
        yield from _damage_arrays(path)
        return
    if path.suffix == ".jsonl":
        tree = [json.loads(line) for line in good.splitlines()]
        yield from _damage_tree(tree, lambda lines: b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        return
    tree = json.loads(good) if path.suffix == ".json" else YAML(typ="safe").load(good)
    yield from _damage_tree(tree, lambda changed: json.dumps(changed).encode())


def _damage_tree(tree: Any, dump: Callable[[Any], bytes]) -> Iterator[Damage]:
    def change(keys: tuple[Any, ...], edit: Callable[[Any, Any], None]) -> bytes:
        changed = copy.deepcopy(tree)
        inside = changed
        for key in keys[:-1]:
            inside = inside[key]
        edit(inside, keys[-1])
        return dump(changed)

    for keys, before in _list_values(tree):
        name = ".".join(map(str, keys))
        yield f"lacks {name}", partial(change, keys, lambda inside, key: inside.__delitem__(key))
        others = {f"has {name} = {value!r}": value for value in VALUES}
        if isinstance(before, list) and before:
            others |= {f"has {name} twice as long": before * 2, f"has {name} nested": [before]}
        elif isinstance(before, dict):
            others[f"has another key in {name}"] = {**before, "another": 1}
        for what, value in others.items():
            yield what, partial(change, keys, lambda inside, key, value=value: inside.__setitem__(key, value))


def _list_values(tree: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yields every value with its keys; of the values in a list the first and the last."""
    if keys:
        yield keys, tree
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        if isinstance(tree, dict) or key in (0, len(tree) - 1):
            yield from _list_values(value, (*keys, key))


def _put(array: torch.Tensor, value: float) -> torch.Tensor:
    changed = array.clone()
    changed.reshape(-1)[:1] = value
    return changed


# Each makes another array of one; what cannot be made of it is left out.
ARRAYS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "a dimension more": lambda a: a[None],
    "a last dimension more": lambda a: a[..., None],
    "one dimension": lambda a: a.reshape(-1),
    "no dimension": lambda a: a.reshape(-1)[0],
    "no entry": lambda a: a[:0],
    "an entry less": lambda a: a[:-1],
    "twice the entries": lambda a: torch.cat([a, a]),
    "reversed axes": lambda a: a.permute(*reversed(range(a.ndim))),
    "a shorter last axis": lambda a: a[..., :-1],
    "nothing on the last axis": lambda a: a[..., :0],
    **{f"type {kind}": lambda a, kind=kind: a.to(getattr(torch, kind))  # type: ignore[misc]
       for kind in ("bfloat16", "float16", "float64", "int8", "int64", "bool")},
    "zeros": torch.zeros_like,
    "a negative value": lambda a: _put(a, -1),
    "another value": lambda a: _put(a, 100),
    "a huge value": lambda a: _put(a, torch.finfo(a.dtype).max if a.is_floating_point() else torch.iinfo(a.dtype).max),
    "NaN": lambda a: _put(a if a.is_floating_point() else a.float(), math.nan),
    "an infinite value": lambda a: _put(a if a.is_floating_point() else a.float(), math.inf),
}  # fmt: skip


def _damage_arrays(path: Path) -> Iterator[Damage]:
    with safe_open(path, framework="pt") as file:
        good = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping

    def write(name: str, change: Callable[[torch.Tensor], torch.Tensor] | None) -> bytes:
        changed = dict(good)
        if change is None:
            del changed[name]
        else:
            changed[name] = change(good[name]).contiguous()
        return save(changed)

    for name in good:
        yield f"lacks {name}", partial(write, name, None)
        for what, change in ARRAYS.items():
            yield f"has {name} with {what}", partial(write, name, change)


def call(*arguments: str) -> tuple[int, str]:
    """Runs a command in this process; returns its exit code and standard error, with a traceback if there is one."""
    sys.argv, error = ["hsi-se", *arguments], io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
            code = 1
    return code, error.getvalue()


def describe_fault(kind: str, folder: Path, name: str, content: bytes, *, copies: Path) -> list[str]:
    """Returns what is wrong with the ends of the commands that open a copy of a folder with one file replaced."""
    faults = []
    for command in COMMANDS[kind][name]:
        copied = copies / "folder"
        shutil.rmtree(copies, ignore_errors=True)
        shutil.copytree(folder, copied)
        (copied / name).write_bytes(content)
        options = [option.replace("OUT", str(copies / "out")) for option in command[1:]]
        code, said = call(command[0], str(copied), *options)
        lines = [line for line in said.splitlines() if line.startswith("hsi-se: ")]
        if code not in (0, 2) or "Traceback" in said or (code == 2) != (len(lines) == 1):
            faults.append(f"{' '.join(command)}: exit code {code}: {said[-1500:]}")
    return faults
