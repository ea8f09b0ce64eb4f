"""Inserts attention blocks into any torch network, after submodules given by name.

A host, the named submodule, takes a class derived from its own, whose `forward` ends in the block. Unlike a hook, a
class is part of what `torch.compile` checks before it reuses code. Unlike a wrapper, it renames no weights.
"""

import difflib
import functools
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils._pytree import tree_leaves

from hsi_se.attention.placement import build_attention
from hsi_se.config.arguments import checked, show
from hsi_se.config.model import AttentionSettings
from hsi_se.errors import ConfigError
from hsi_se.models.inference import evaluation_mode
from hsi_se.models.network import Network as OwnNetwork

Network = TypeVar("Network", bound=nn.Module)


@checked("blocks", "example")
def insert_attention(
    network: Network,
    blocks: Mapping[str, AttentionSettings | Mapping[str, object]],
    *,
    example: Tensor | tuple[Any, ...],
    axis: int | None = None,
) -> Network:
    """Inserts an attention block after each named submodule, in place, and returns the network.

    Three dry runs, in evaluation mode without gradients, check that the submodule then returns `block(previous output)`
    and that nothing else changes. Other weights keep their values and names. A block's are named `NAME.attention.…`, so
    older checkpoints load with `strict=False`; they have the network's dtype and device. The network can be indexed,
    copied, compiled and exported as before. Layers converted later (`convert_sync_batchnorm`) lose their block.

    Args:
        blocks: settings by the submodule's dotted name, such as `{"layer3.1.bn2": SqueezeExcite(kind="se")}` or
            `{"layer3.1.bn2": {"kind": "se", "start": "identity"}}`.
        example: an input of the network, on its device and of its dtype; a tuple for several inputs.
        axis: axis of the channels, 1 for `(n, c, h, w)` and `(n, c, d, h, w)`, -1 for `(n, h, w, c)` and `(n, d, h, w,
            c)`; 1 if left out, and an error if dense layers or layer norms show that the channels are last.

    Raises:
        ConfigError: a name does not exist, a submodule is not called exactly once, its output is not a tensor of 4 or 5
            axes, the block does not fit, or more than the submodule's output would change. Nothing is then inserted.
    """
    if axis not in (None, 1, -1):
        raise _refuse(f"axis = {axis}: the channels must be the second or the last axis; write 1 or -1")
    if not isinstance(blocks, Mapping) or not all(isinstance(name, str) for name in blocks):
        raise _refuse(f"blocks = {show(blocks)}: write the settings of each block under the name of its submodule")
    settings = {name: _read_settings(name, block) for name, block in blocks.items()}
    hosts = _find_hosts(network, settings)
    inputs = example if isinstance(example, tuple) else (example,)
    first = _DryRun(network, hosts, inputs)
    if first.error:
        shapes = ", ".join(map(show, inputs))
        remedy = "give an input of the shape, dtype and device that it takes, or a tuple of its inputs"
        raise _refuse(f"example = {shapes}: the network does not run on it ({first.error}); {remedy}")
    axes = {name: _find_axis(name, first, axis) for name in hosts}
    built = {name: _build(name, settings[name], network, first.outputs[name][0], axes[name]) for name in hosts}
    try:
        for name, host in hosts.items():
            _attend(host, axes[name])
        for is_probe in (True, False):
            for name, host in hosts.items():
                host.add_module("attention", _Probe() if is_probe else built[name].train(host.training))
            _compare(first, _DryRun(network, hosts, inputs), hosts)
    except BaseException:
        for host in hosts.values():
            host._modules.pop("attention", None)
            if isinstance(host, Attended):
                host.__class__ = host.plain_class  # type: ignore[assignment]
        raise
    return network


def is_plain(network: nn.Module, *, has_known_layers: bool = True) -> bool:
    """Returns whether one of our networks computes what its stages and slots say, and can be computed from them.

    It is not with a block that `insert_attention` added, a hook, a `forward` of its own, or, if `has_known_layers`, a
    layer of another kind than HybridSN's.
    """
    layers: tuple[type, ...] = OwnNetwork, nn.ModuleDict, nn.Sequential, _ConvNd, _BatchNorm, nn.ReLU, nn.Identity
    layers += (nn.Flatten, nn.Unflatten, nn.Linear, nn.Dropout, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
    return type(network).forward is OwnNetwork.forward and not any(
        isinstance(module, Attended | ParametrizationList)
        or module._forward_hooks
        or module._forward_pre_hooks
        or "forward" in vars(module)
        or not (not has_known_layers or name.startswith("attention.") or isinstance(module, layers))
        for name, module in network.named_modules()
    )


class Attended(nn.Module):
    """The mixin of a host's derived class: the output passes through the child `attention`."""

    attention: nn.Module
    attention_axis: int  # of the channels
    plain_class: type[nn.Module]  # the host's own

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        features: Tensor = super().forward(*args, **kwargs)
        if self.attention_axis == 1:
            return self.attention(features)  # type: ignore[no-any-return]
        return self.attention(features.movedim(-1, 1)).movedim(1, -1)  # type: ignore[no-any-return]

    def __reduce_ex__(self, protocol: Any) -> Any:
        reduced: Any = super().__reduce_ex__(protocol)  # of the derived class, which has no importable name
        make, args, *rest = reduced
        args = tuple(self.plain_class if each is type(self) else each for each in args)
        return _restore, (make, args, self.attention_axis), *rest


def _restore(make: Callable[..., nn.Module], args: tuple[object, ...], axis: int) -> nn.Module:
    return _attend(make(*args), axis)


def _attend(host: nn.Module, axis: int) -> nn.Module:
    host.__class__ = _derive(type(host), axis)  # type: ignore[arg-type]
    return host


def _list_others(host: nn.Module) -> OrderedDict[str, Any]:
    return OrderedDict((name, child) for name, child in host._modules.items() if name != "attention")


# What makes torch's containers iterate, count and index their children without the block.
_COUNT = {"__len__": lambda host: len(_list_others(host))}
_VALUES = _COUNT | {"__iter__": lambda host: iter(_list_others(host).values())}
_HIDING: dict[type[nn.Module], dict[str, Any]] = {
    nn.Sequential: _VALUES | {"__getitem__": lambda host, index: nn.Sequential(_list_others(host))[index]},
    nn.ModuleList: _VALUES | {"__getitem__": lambda host, index: nn.ModuleList(_list_others(host).values())[index]},
    nn.ModuleDict: _COUNT
    | {"__iter__": lambda host: iter(_list_others(host)), "keys": lambda host: _list_others(host).keys()}
    | {"values": lambda host: _list_others(host).values(), "items": lambda host: _list_others(host).items()},
}


@functools.cache
def _derive(plain: Any, axis: int) -> type[Attended]:
    # With the module of `plain`, torch.fx keeps a layer of torch whole.
    members: dict[str, object] = {"attention_axis": axis, "plain_class": plain, "__module__": plain.__module__}
    for container, methods in _HIDING.items():
        if issubclass(plain, container):
            members |= {name: own for name, own in methods.items() if getattr(plain, name) is getattr(container, name)}
    return type(plain.__name__, (Attended, plain), members)


class _Probe(nn.Module):
    """A block that changes nothing. It is not an `nn.Identity`, which a network may skip."""

    num_calls = 0

    def forward(self, x: Any) -> Any:
        self.num_calls += 1
        return x


_FIRST, _LAST = (_ConvNd, _BatchNorm, nn.GroupNorm), (nn.Linear, nn.LayerNorm)  # where layers have the channels


class _DryRun:
    """The outputs of the hosts and of the network (named ""), in the order of their first calls."""

    def __init__(self, network: nn.Module, hosts: Mapping[str, nn.Module], inputs: tuple[Any, ...]) -> None:
        self.outputs: dict[str, list[Any]] = {}
        self.axes: dict[str, tuple[int, ...]] = {}  # where the channels of a host's output may be; () if it has none
        self.error = ""
        names = {host: name for name, host in hosts.items()}
        layout: tuple[int, tuple[int, ...]] = 1, ()  # axis of the channels and shape, of the latest layer's output

        def note(module: nn.Module, _: object, output: Any) -> None:
            nonlocal layout
            shape = tuple(output.shape) if isinstance(output, Tensor) and output.ndim in (4, 5) else ()
            if shape and isinstance(module, (*_FIRST, *_LAST)):
                layout = -1 if isinstance(module, _LAST) else 1, shape
            if module in names:
                self.outputs.setdefault(names[module], []).append(output)
                axis, latest = layout
                axes: tuple[int, ...] = (axis,) if shape else ()
                if shape and sorted(shape) == sorted(latest) and (axis == -1 or shape != latest):  # permuted, perhaps
                    axes = tuple(each for each in (1, -1) if shape[each] == latest[axis]) or (axis,)
                self.axes[names[module]] = axes

        devices = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)  # type: ignore[no-untyped-call]
        # Not in inference mode: a network may keep tensors from its first forward pass.
        no_gradients = evaluation_mode(network), torch.inference_mode(False), torch.no_grad()
        with ExitStack() as stack:
            if "torch._dynamo" in sys.modules:
                stack.enter_context(torch.compiler.set_stance("force_eager"))  # compiled code calls no hooks
            for context in (*no_gradients, torch.random.fork_rng(devices)):
                stack.enter_context(context)
            torch.manual_seed(0)
            for module in network.modules():
                if module in names or isinstance(module, (*_FIRST, *_LAST)):
                    stack.enter_context(module.register_forward_hook(note))
            try:
                self.outputs[""] = [network(*inputs)]
            except Exception as error:
                self.error = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _find_axis(name: str, run: _DryRun, axis: int | None) -> int:
    """Returns the axis of the channels in a host's output, `axis` if given. The output must be features."""
    outputs = run.outputs.get(name, [])
    if len(outputs) != 1:
        remedy = "choose a submodule that is called once"
        raise _refuse(f"{name} is called {len(outputs)} times in one forward pass, not once; {remedy}")
    shown, axes = f"a {type(outputs[0]).__name__}", run.axes[name]
    if isinstance(outputs[0], Tensor):
        shown = f"a tensor {tuple(outputs[0].shape)} of {str(outputs[0].dtype).removeprefix('torch.')}"
    if not axes or not outputs[0].is_floating_point():
        remedy = "choose a convolution, a norm or a block of them"
        raise _refuse(f"{name} returns {shown}, not features (n, c, h, w) or (n, c, d, h, w); {remedy}")
    if axis is None and axes != (1,):
        where = "last; write axis=-1" if axes == (-1,) else "axis 1 or the last; write axis=1 or axis=-1"
        raise _refuse(f"{name} returns {shown}, whose channels are {where}")
    return axis or 1


def _build(name: str, block: AttentionSettings, network: nn.Module, output: Tensor, axis: int) -> nn.Module:
    features = output.movedim(axis, 1)
    misfit = block.explain_misfit(is_3d=features.ndim == 5)
    if misfit is not None:
        raise _refuse(f"{block.kind} after {name}: {misfit[0]}: {misfit[1]}")
    dtypes = [each.dtype for each in network.parameters() if each.is_floating_point()]
    dtype = features.dtype if features.dtype in dtypes or not dtypes else dtypes[0]  # autocast inside the network
    with torch.inference_mode(False):
        return build_attention(block, shape=tuple(features.shape[1:])).to(features.device, dtype)


def _compare(first: _DryRun, run: _DryRun, hosts: Mapping[str, nn.Module]) -> None:
    """Refuses blocks with which the network fails, and probes with which it computes anything else than before."""
    remedy, all_names = "choose another submodule", ", ".join(hosts)
    if run.error:
        name = next((name for name in first.outputs if name not in ("", *run.outputs)), all_names)
        raise _refuse(f"{name}: the network fails with a block there ({run.error}); {remedy}")
    probes = {name: host.attention for name, host in hosts.items() if isinstance(host.attention, _Probe)}
    changed = [name for name, probe in probes.items() if probe.num_calls != 1]
    changed += [name for name in first.outputs if probes and not _are_near(first.outputs[name], run.outputs.get(name))]
    if changed:
        name = changed[0] or all_names
        raise _refuse(f"{name}: the network would run or read the block as one of its own layers; {remedy}")


def _are_near(one: object, other: object) -> bool:
    """Returns whether the tensors in two outputs differ by rounding alone, in a low precision and another algorithm."""
    a, b = ([leaf for leaf in tree_leaves(each) if isinstance(leaf, Tensor)] for each in (one, other))
    if [leaf.shape for leaf in a] != [leaf.shape for leaf in b]:
        return False
    pairs = [(x.double(), y.double()) for x, y in zip(a, b, strict=True) if not x.is_meta]
    return all(torch.allclose(x, y, 1e-2, 1e-2 * float(x.abs().mean().nan_to_num()), equal_nan=True) for x, y in pairs)


def _refuse(message: str) -> ConfigError:
    return ConfigError(f"insert_attention: {message}")


def _read_settings(name: str, block: object) -> AttentionSettings:
    try:
        settings: AttentionSettings = TypeAdapter(AttentionSettings).validate_python(block)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        keys = [str(key) for key in first["loc"][1:]] or [first.get("ctx", {}).get("key") or "kind"]
        raise _refuse(f"{name}: {'.'.join(keys)}: {first['msg']}; write settings such as {{'kind': 'se'}}") from None
    return settings


def _find_hosts(network: nn.Module, names: Mapping[str, object]) -> dict[str, nn.Module]:
    modules = dict(network.named_modules(remove_duplicate=False))
    hosts: dict[str, nn.Module] = {}
    for name in names:
        if not name or name not in modules:
            near = difflib.get_close_matches(name, modules, n=3) or [key for key in modules if key][:3]
            raise _refuse(f"no submodule {name!r}; the closest are {', '.join(near)}")
        host: Any = getattr(modules[name], "_orig_mod", modules[name])  # torch.compile wraps a module
        parents = (modules[".".join(name.split(".")[:length])] for length in range(name.count(".") + 2))
        if any(isinstance(each, torch.jit.ScriptModule) for each in parents) or isinstance(host, torch.fx.GraphModule):
            raise _refuse(f"{name} is code of torch.jit or torch.fx, which cannot be changed; insert before tracing")
        if hasattr(host, "attention"):
            raise _refuse(f"{name} already has an attribute named attention; choose another submodule")
        if host in hosts.values():
            raise _refuse(f"{name} is another name of a submodule that is given, too; name it once")
        hosts[name] = host
    return hosts
