"""Every attention block: shape, gradients, an independent recomputation, a worked limit, every option."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hsi_se.attention.cbam import Cbam
from hsi_se.attention.coordinate import Coordinate
from hsi_se.attention.eca import EfficientChannel
from hsi_se.attention.expectation_maximization import ExpectationMaximization
from hsi_se.attention.gather_excite import GatherExcite
from hsi_se.attention.nonlocal_block import NonLocal
from hsi_se.attention.scse import ConcurrentSqueezeExcite
from hsi_se.attention.simam import SimAm
from hsi_se.attention.squeeze_excite import SqueezeExcite
from hsi_se.attention.strip_pooling import StripPooling
from hsi_se.config.model import Starting, list_blocks
from hsi_se.errors import ConfigError
from tests.attention.conftest import DEEP, FLAT, make

FITTING = [
    pytest.param(block.kind, shape, id=f"{block.kind}-{shape}")
    for block in list_blocks()
    for shape in (FLAT, DEEP)
    if block.explain_misfit(is_3d=shape == DEEP) is None
]


@pytest.mark.parametrize(("kind", "shape"), [*FITTING, *((block.kind, (12, 1, 1)) for block in list_blocks())])
def test_output_has_the_inputs_shape_and_not_its_values(kind, shape):
    x = torch.randn(3, *shape)
    block = make(kind, shape).train()
    assert block(x).shape == x.shape
    assert not torch.allclose(block(x), x)


@pytest.mark.parametrize(("kind", "shape"), FITTING)
def test_every_parameter_and_the_input_get_a_gradient(kind, shape):
    torch.manual_seed(0)
    x = torch.rand(3, *shape, requires_grad=True)
    block = make(kind, shape, **({"reduction": 1} if kind in ("se", "cbam") else {})).train()
    block(x).square().sum().backward()
    assert x.grad is not None
    moving = {name for name, p in block.named_parameters() if p.grad is not None and p.grad.abs().sum() > 1e-5}
    # Batch norm takes its input's bias away, and a bias of all keys adds the same to every likeness.
    still = {"nonlocal": {"phi.bias", "out.bias"}, "coordinate": {"embed.0.bias"}}.get(kind, set())
    assert moving | still == dict(block.named_parameters()).keys()


def recompute_se(block: Any, x: Tensor) -> Tensor:
    z = x.flatten(2).mean(2)
    hidden = (z @ block.reduce.weight.T + block.reduce.bias).clamp(min=0)
    gates = 1 / (1 + torch.exp(-(hidden @ block.expand.weight.T + block.expand.bias)))
    return torch.einsum("nc...,nc->nc...", x, gates)


def recompute_eca(block: Any, x: Tensor) -> Tensor:
    z = x.flatten(2).mean(2)
    weight = block.conv.weight.flatten().tolist()
    margin = len(weight) // 2
    out = torch.zeros_like(z)
    for channel in range(z.shape[1]):
        for step, w in enumerate(weight):
            neighbour = channel + step - margin
            if 0 <= neighbour < z.shape[1]:
                out[:, channel] += w * z[:, neighbour]
    return torch.einsum("nc...,nc->nc...", x, torch.sigmoid(out))


def recompute_cbam(block: Any, x: Tensor) -> Tensor:
    def dense(z: Tensor) -> Tensor:
        return torch.relu(z @ block.mlp[0].weight.T) @ block.mlp[2].weight.T

    gates = torch.sigmoid(dense(x.flatten(2).mean(2)) + dense(x.flatten(2).max(2).values))
    x = torch.einsum("nc...,nc->nc...", x, gates)
    if x.ndim == 5:
        return x
    statistics = torch.cat([x.sum(1, keepdim=True) / x.shape[1], x.max(1, keepdim=True).values], 1)
    windows = F.unfold(statistics, 7, padding=3)  # (n, 2·49, h·w)
    gates = torch.sigmoid(block.places.weight.flatten() @ windows)
    return x * gates.view(len(x), 1, *x.shape[2:])


def recompute_nonlocal(block: Any, x: Tensor) -> Tensor:
    def embed(conv: Any, y: Tensor) -> Tensor:  # (n, c, q) to (n, c/2, q)
        return torch.einsum("ec,ncq->neq", conv.weight.flatten(1), y) + conv.bias[:, None]

    flat = x.flatten(2)
    theta, phi, g = (embed(conv, flat) for conv in (block.theta, block.phi, block.g))
    likeness = torch.exp(torch.einsum("neq,nes->nqs", theta, phi))
    gathered = torch.einsum("nqs,nes->neq", likeness / likeness.sum(2, keepdim=True), g)
    out = embed(block.out, gathered)
    norm = block.norm
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    out = (out - norm.running_mean[:, None]) * scale[:, None] + norm.bias[:, None]
    return x + out.view_as(x)


def recompute_strip_pooling(block: Any, x: Tensor) -> Tensor:
    def along(strip: Tensor, conv: Any) -> Tensor:  # (n, c, length)
        padded = torch.cat([strip[:, :, :1], strip, strip[:, :, -1:]], 2)
        weight = conv.weight.flatten(2)
        steps = [
            torch.einsum("oc,ncl->nol", weight[:, :, k], padded[:, :, k:][:, :, : strip.shape[2]]) for k in range(3)
        ]
        return sum(steps) + conv.bias[:, None]

    rows, cols = along(x.mean(3), block.along_rows), along(x.mean(2), block.along_cols)
    total = (rows[:, :, :, None] + cols[:, :, None, :]).clamp(min=0)
    gates = torch.einsum("oc,nchw->nohw", block.fuse.weight[:, :, 0, 0], total)
    return x * torch.sigmoid(gates + block.fuse.bias[:, None, None])


def recompute_coordinate(block: Any, x: Tensor) -> Tensor:
    conv, norm, _ = block.embed

    def embed(strip: Tensor) -> Tensor:  # (n, c, length)
        y = torch.einsum("ec,ncl->nel", conv.weight[:, :, 0, 0], strip) + conv.bias[:, None]
        y = (y - norm.running_mean[:, None]) / (norm.running_var[:, None] + norm.eps).sqrt()
        y = y * norm.weight[:, None] + norm.bias[:, None]
        return y * (y + 3).clamp(0, 6) / 6

    def gate(strip: Tensor, out: Any) -> Tensor:
        return torch.sigmoid(torch.einsum("ec,ncl->nel", out.weight[:, :, 0, 0], strip) + out.bias[:, None])

    rows, cols = gate(embed(x.mean(3)), block.rows), gate(embed(x.mean(2)), block.cols)
    return x * rows[:, :, :, None] * cols[:, :, None, :]


def recompute_gather_excite(_: Any, x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x.flatten(2).mean(2)))[:, :, None, None]


def recompute_simam(_: Any, x: Tensor) -> Tensor:
    flat = x.flatten(2).double()
    inverse = (flat - flat.mean(2, keepdim=True)) ** 2 / (4 * (flat.var(2, keepdim=True) + 1e-4)) + 0.5
    return (x.double() / (1 + torch.exp(-inverse.view_as(x)))).float()


def recompute_scse(block: Any, x: Tensor) -> Tensor:
    hidden = (x.flatten(2).mean(2) @ block.mlp[0].weight.T + block.mlp[0].bias).clamp(min=0)
    of_channels = torch.sigmoid(hidden @ block.mlp[2].weight.T + block.mlp[2].bias)
    of_places = torch.sigmoid(torch.einsum("c,nc...->n...", block.places.weight.flatten(), x) + block.places.bias)
    return torch.einsum("nc...,nc->nc...", x, of_channels) + x * of_places[:, None]


def recompute_em(block: Any, x: Tensor) -> Tensor:
    """One image at a time, one base at a time."""
    rows = []
    for image in x.flatten(2):  # (c, positions)
        y = block.embed.weight.flatten(1) @ image + block.embed.bias[:, None]
        bases = [block.bases[:, k] for k in range(block.bases.shape[1])]
        for _ in range(3):
            scores = torch.stack([torch.exp(base @ y) for base in bases])  # (k, positions)
            scores = scores / scores.sum(0)
            means = [y @ score / score.sum() for score in scores]
            bases = [mean / mean.square().sum().sqrt() for mean in means]
        found = sum(torch.outer(base, score) for base, score in zip(bases, scores, strict=True))
        rows.append(block.out.weight.flatten(1) @ found.clamp(min=0))
    norm, out = block.norm, torch.stack(rows)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return x + ((out - norm.running_mean[:, None]) * scale[:, None] + norm.bias[:, None]).view_as(x)


RECOMPUTE: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "se": recompute_se, "eca": recompute_eca, "cbam": recompute_cbam, "nonlocal": recompute_nonlocal,
    "strip_pooling": recompute_strip_pooling, "coordinate": recompute_coordinate,
    "gather_excite": recompute_gather_excite, "simam": recompute_simam, "scse": recompute_scse, "em": recompute_em,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "shape"), FITTING)
def test_output_equals_plain_tensor_code(kind, shape):
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    block = make(kind, shape).eval()
    torch.testing.assert_close(block(x), RECOMPUTE[kind](block, x), rtol=1e-5, atol=1e-5)


# Another value of every option, and the shape at which it acts.
OPTIONS = {
    ("se", "reduction"): (4, FLAT), ("se", "bias"): (False, FLAT), ("se", "form"): ("conv", FLAT),
    ("se", "squeeze"): ("max", FLAT), ("se", "axis"): ("band", DEEP),
    ("eca", "kernel_size"): (5, FLAT), ("eca", "axis"): ("band", DEEP),
    ("cbam", "reduction"): (4, FLAT), ("cbam", "bias"): (True, FLAT), ("cbam", "spatial_kernel"): (3, FLAT),
    ("nonlocal", "reduction"): (4, FLAT), ("nonlocal", "sub_sample"): (True, FLAT),
    ("strip_pooling", "kernel_size"): (5, FLAT), ("coordinate", "reduction"): (1, FLAT),
    ("gather_excite", "extent"): (2, FLAT), ("gather_excite", "learned"): (True, FLAT),
    ("simam", "regularization"): (0.1, FLAT), ("scse", "reduction"): (4, FLAT),
    ("em", "bases"): (3, FLAT), ("em", "steps"): (1, FLAT),
    **{(block.kind, "start"): ("identity", FLAT) for block in list_blocks() if isinstance(block, Starting)},
}  # fmt: skip


def test_every_option_of_every_block_is_in_the_table_above():
    options = {(block.kind, name) for block in list_blocks() for name in type(block).model_fields}
    assert set(OPTIONS) == {(kind, name) for kind, name in options if name != "kind"}


@pytest.mark.parametrize(("kind", "option"), OPTIONS, ids=lambda part: part)
def test_every_option_changes_the_output_or_the_parameters(kind, option):
    value, shape = OPTIONS[kind, option]
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    plain, changed = make(kind, shape).eval(), make(kind, shape, **{option: value}).eval()
    names = [{name: tuple(p.shape) for name, p in block.named_parameters()} for block in (plain, changed)]
    assert names[0] != names[1] or not torch.allclose(plain(x), changed(x))


STARTING = [case for case in FITTING if case.values[0] != "nonlocal"]  # which always starts as the identity


@pytest.mark.parametrize(("kind", "shape"), STARTING)
def test_a_block_that_starts_as_the_identity_learns_to_act(kind, shape):
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    block = make(kind, shape, start="identity").train()
    assert torch.equal(block(x), x)
    assert torch.equal(block.eval()(x), x)
    block.train()(x).square().sum().backward()
    assert block.strength.grad.abs() > 1e-4
    with torch.no_grad():
        block.strength.sub_(0.1 * block.strength.grad.sign())
    assert not torch.allclose(block(x), x)
    block.zero_grad()
    block(x).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for name, parameter in block.named_parameters() if "weight" in name)


@pytest.mark.parametrize(("kind", "shape"), STARTING)
def test_a_block_started_as_the_identity_has_one_more_parameter_and_gates_twice_the_sigmoid(kind, shape):
    plain, started = make(kind, shape).eval(), make(kind, shape, start="identity").eval()
    assert started.state_dict().keys() - plain.state_dict().keys() == {"strength"}
    plain.load_state_dict({name: value for name, value in started.state_dict().items() if name != "strength"})
    nn.init.ones_(started.strength)
    x = torch.randn(3, *shape)
    num_gates = {"coordinate": 2, "em": 0, "scse": 0}.get(kind, 1)
    if kind == "cbam" and shape == FLAT:  # whose second gate sees what the first has scaled
        x, plain.places, started.places = x[:, :, :1, :1], None, None
    torch.testing.assert_close(started(x), 2**num_gates * plain(x), rtol=1e-5, atol=1e-5)


BLOCKS = (
    SqueezeExcite, EfficientChannel, Cbam, ConcurrentSqueezeExcite, NonLocal, ExpectationMaximization, StripPooling,
    Coordinate, GatherExcite, SimAm,
)  # fmt: skip


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_takes_the_channels_of_input_and_output_as_detectors_give_them(kind):
    assert len(BLOCKS) == len(list_blocks())
    x = torch.randn(2, 16, 6, 6)
    assert kind(16, 16)(x).shape == x.shape
    shapes = [{name: p.shape for name, p in block.named_parameters()} for block in (kind(16, 16), kind(16))]
    assert shapes[0] == shapes[1]
    name = kind.__name__
    with pytest.raises(ConfigError) as caught:
        kind(16, 32)
    assert str(caught.value) == f"{name}(16, 32): keeps its channels; write {name}(16, 16)"
