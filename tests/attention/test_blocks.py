"""Every attention block: shape, gradients, an independent recomputation, a worked limit, every option."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from hsi_se.attention.cbam import Cbam
from hsi_se.attention.coordinate import Coordinate
from hsi_se.attention.eca import EfficientChannel, eca_kernel_size
from hsi_se.attention.expectation_maximization import ExpectationMaximization
from hsi_se.attention.gather_excite import GatherExcite
from hsi_se.attention.nonlocal_block import NonLocal
from hsi_se.attention.placement import build_attention
from hsi_se.attention.scse import ConcurrentSqueezeExcite
from hsi_se.attention.simam import SimAm
from hsi_se.attention.squeeze_excite import SqueezeExcite
from hsi_se.attention.strip_pooling import StripPooling
from hsi_se.config.model import AttentionSettings, Starting, list_blocks
from hsi_se.errors import ConfigError
from hsi_se.models import initialize
from hsi_se.workflows.explain import Gate

FLAT, DEEP = (12, 5, 4), (12, 7, 5, 4)  # (c, h, w) and (c, d, h, w)
FITTING = [
    pytest.param(block.kind, shape, id=f"{block.kind}-{shape}")
    for block in list_blocks()
    for shape in (FLAT, DEEP)
    if block.explain_misfit(is_3d=shape == DEEP) is None
]


def make(kind: str, shape: tuple[int, ...], **changes: Any) -> nn.Module:
    block = TypeAdapter(AttentionSettings).validate_python({"kind": kind, **changes})
    module = build_attention(block, shape=shape)
    initialize(module, seed=0)
    for child in module.modules():  # a norm that starts at zero would hide what is behind it
        if isinstance(child, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.uniform_(child.running_mean, -0.5, 0.5)
            nn.init.uniform_(child.running_var, 0.5, 1.5)
    return module


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


def test_the_channel_half_of_scse_is_what_explain_reports():
    x, block = torch.randn(3, *FLAT), make("scse", FLAT)
    of_places = torch.sigmoid(F.conv2d(x, block.places.weight, block.places.bias))
    assert isinstance(block, Gate)
    torch.testing.assert_close(block(x), x * block.excitation(x)[..., None, None] + x * of_places)


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


@pytest.mark.parametrize("axis", ["feature", "band"])
@pytest.mark.parametrize("squeeze", ["mean", "max"])
@pytest.mark.parametrize("bias", [True, False])
def test_squeeze_excite_gates_features_or_bands_at_a_3d_point(axis, squeeze, bias):
    x = torch.randn(3, *DEEP)
    channels = {"feature": 12, "band": 7}[axis]
    block = SqueezeExcite(channels, reduction=3, squeeze=squeeze, bias=bias, axis=axis)

    moved = x if axis == "feature" else x.transpose(1, 2)  # the gated axis first
    rows = moved.flatten(2)
    z = rows.mean(2) if squeeze == "mean" else rows.max(2).values
    one = F.relu(F.linear(z, block.reduce.weight, block.reduce.bias))
    gate = 1 / (1 + torch.exp(-F.linear(one, block.expand.weight, block.expand.bias)))
    expected = moved * gate[:, :, None, None, None]
    expected = expected if axis == "feature" else expected.transpose(1, 2)

    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("shape", [FLAT, DEEP])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_and_convolutional_forms_are_twins(shape, bias):
    x = torch.randn(3, *shape)
    linear = SqueezeExcite(12, reduction=4, bias=bias, form="linear")
    conv = SqueezeExcite(12, reduction=4, bias=bias, form="conv")
    conv.load_state_dict(
        {name: value[:, :, None, None] if value.ndim == 2 else value for name, value in linear.state_dict().items()}
    )
    assert (conv(x) - linear(x)).abs().max() <= 1e-6


@pytest.mark.parametrize(
    ("channels", "reduction", "hidden"),
    [(576, 16, 36), (64, 16, 4), (8, 16, 1), (8, 1000, 1), (24, 16, 2), (30, 16, 2), (64, 1, 64)],
)
def test_hidden_width_is_the_rounded_quotient_and_never_zero(channels, reduction, hidden):
    assert SqueezeExcite(channels, reduction=reduction).reduce.weight.shape == (hidden, channels)


@pytest.mark.parametrize("form", ["linear", "conv"])
@pytest.mark.parametrize("axis", ["feature", "band"])
def test_every_parameter_of_squeeze_excite_gets_a_gradient_in_either_form(form, axis):
    block = SqueezeExcite({"feature": 12, "band": 7}[axis], reduction=1, form=form, axis=axis)
    with torch.no_grad():  # a hidden unit that is dead by chance would have none
        block.reduce.weight.abs_()
        block.reduce.bias.abs_()
    block(torch.rand(3, *DEEP)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in block.parameters())


def test_excitation_lies_between_zero_and_one():
    block = SqueezeExcite(12)
    gates = block.excitation(10 * torch.randn(3, *DEEP))
    assert gates.shape == (3, 12)
    assert ((gates > 0) & (gates < 1)).all()


@pytest.mark.parametrize("is_3d", [False, True])
@pytest.mark.parametrize("sub_sample", [False, True])
def test_a_new_non_local_block_is_the_identity(is_3d, sub_sample):
    x = torch.randn(2, *(DEEP if is_3d else FLAT))
    block = NonLocal(12, is_3d=is_3d, sub_sample=sub_sample)
    initialize(block, seed=3)
    assert torch.equal(block.train()(x), x)
    assert torch.equal(block.eval()(x), x)


def test_sub_sampled_keys_are_the_2_by_2_maxima():
    block = make("nonlocal", FLAT, sub_sample=True).eval()
    x = torch.randn(2, *FLAT)
    keys = F.pad(block.phi(x), (0, 0, 0, 1), value=-math.inf).unflatten(3, (2, 2)).unflatten(2, (3, 2))
    values = F.pad(block.g(x), (0, 0, 0, 1), value=-math.inf).unflatten(3, (2, 2)).unflatten(2, (3, 2))
    keys, values = keys.amax((3, 5)).flatten(2), values.amax((3, 5)).flatten(2)  # (n, c/2, 6)
    weights = torch.softmax(block.theta(x).flatten(2).transpose(1, 2) @ keys, 2)
    gathered = (weights @ values.transpose(1, 2)).transpose(1, 2).reshape(2, 6, 5, 4)
    torch.testing.assert_close(block(x), x + block.norm(block.out(gathered)))


def test_sub_sampling_at_a_3d_point_keeps_the_spectral_depth():
    block = make("nonlocal", DEEP, sub_sample=True).eval()
    x = torch.randn(2, *DEEP)
    keys, values = (
        torch.stack([F.max_pool2d(each[:, :, d], 2, ceil_mode=True) for d in range(7)], 2).flatten(2)
        for each in (block.phi(x), block.g(x))
    )
    weights = torch.einsum("ncq,ncs->nqs", block.theta(x).flatten(2), keys).softmax(2)
    gathered = torch.einsum("nqs,ncs->ncq", weights, values).reshape(2, 6, *DEEP[1:])
    torch.testing.assert_close(block(x), x + block.norm(block.out(gathered)))


def test_non_local_attention_over_equal_places_returns_their_value():
    block = make("nonlocal", FLAT).eval()
    x = torch.randn(2, 12, 1, 1).expand(2, 12, 5, 4)
    expected = x + block.norm(block.out(block.g(x)))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("kind", ["strip_pooling", "gather_excite", "simam"])
def test_a_constant_map_stays_constant(kind):
    x = torch.randn(2, 12, 1, 1).expand(2, 12, 5, 4)
    out = make(kind, FLAT).eval()(x)
    torch.testing.assert_close(out, out[:, :, :1, :1].expand_as(out))


def test_strip_pooling_gives_a_place_the_gate_of_its_row_and_col():
    # Only row 3 and col 1 carry a signal; with identity convolutions the gate is sigmoid of their sum.
    block = StripPooling(1)
    for conv, centre in ((block.along_rows, (1, 0)), (block.along_cols, (0, 1)), (block.fuse, (0, 0))):
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
        conv.weight.data[0, 0][centre] = 1.0
    x = torch.zeros(1, 1, 5, 4)
    x[0, 0, 3, 1] = 20.0
    gates = torch.sigmoid(x.mean(3)[0, 0][:, None] + x.mean(2)[0, 0][None, :])
    torch.testing.assert_close(block(x)[0, 0], x[0, 0] * gates)


@pytest.mark.parametrize(
    ("channels", "size"), [(1, 1), (8, 3), (16, 3), (32, 3), (64, 3), (128, 5), (256, 5), (512, 5), (576, 5)]
)
def test_ecas_kernel_is_the_papers(channels, size):
    assert eca_kernel_size(channels) == size
    assert EfficientChannel(channels).conv.weight.shape == (1, 1, size)


@pytest.mark.parametrize(
    ("block", "num_gates"),
    [
        (SqueezeExcite(12), 1), (EfficientChannel(12), 1), (Cbam(12), 2), (Cbam(12, spatial_kernel=0), 1),
        (Coordinate(12).eval(), 2), (StripPooling(12), 1),
    ],
    ids=lambda part: type(part).__name__,
)  # fmt: skip
def test_zero_weights_halve_the_input_once_a_gate(block, num_gates):
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, *FLAT)
    torch.testing.assert_close(block(x), x / 2**num_gates)


def test_gather_excite_takes_the_mean_of_the_neighbourhood():
    x = torch.randn(1, 1, 8, 8)
    block = GatherExcite(extent=2)  # means of 3 × 3 places around every second one
    padded = F.pad(x, (1, 1, 1, 1), value=math.nan)
    for row, col in ((0, 0), (3, 5), (7, 7)):
        at = (row // 2 * 2, col // 2 * 2)
        mean = padded[0, 0, at[0] : at[0] + 3, at[1] : at[1] + 3].nanmean()
        torch.testing.assert_close(block(x)[0, 0, row, col], x[0, 0, row, col] * mean.sigmoid())


def test_simam_favours_the_value_that_stands_out():
    x = torch.ones(1, 1, 4, 4)
    x[0, 0, 2, 2] = 5.0
    gates = SimAm()(x) / x
    assert gates.argmax() == 10
    # By hand: the mean is 1.25, the sum of squares 15, the variance 1.
    assert float(gates[0, 0, 2, 2]) == pytest.approx(1 / (1 + math.exp(-(3.75**2 / (4 * 1.0001) + 0.5))), rel=1e-5)


def test_a_single_place_is_no_division_by_zero():
    assert SimAm()(torch.ones(2, 3, 1, 1)).isfinite().all()


@pytest.mark.parametrize(("channels", "reduction"), [(12, 2), (8, 8)])  # the second has an inner width of one
@pytest.mark.parametrize("is_3d", [False, True])
def test_a_non_local_block_never_holds_the_similarity_of_all_pairs(is_3d, channels, reduction):
    """Only torch's fused attention may run here; with another layout it would refuse to."""
    block = NonLocal(channels, is_3d=is_3d, reduction=reduction)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), torch.no_grad():
        block(torch.randn(2, channels, *(3,) * is_3d, 5, 5))


@pytest.mark.parametrize(("shape", "sub_sample"), [((2, 6, 4, 5), False), ((2, 6, 3, 4, 5), True)])
def test_non_local_is_the_softmax_of_every_pair_of_places(shape, sub_sample):
    torch.manual_seed(0)
    block = NonLocal(shape[1], is_3d=len(shape) == 5, sub_sample=sub_sample).double().eval()
    nn.init.ones_(block.norm.weight)
    x = torch.randn(shape, dtype=torch.float64)
    q, k, v = (conv(x) for conv in (block.theta, block.phi, block.g))
    if sub_sample:
        k, v = (F.max_pool3d(each, (1, 2, 2), ceil_mode=True) for each in (k, v))
    weights = torch.einsum("ncq,ncs->nqs", q.flatten(2), k.flatten(2)).softmax(2)
    gathered = torch.einsum("nqs,ncs->ncq", weights, v.flatten(2)).view(q.shape)
    torch.testing.assert_close(block(x), x + block.norm(block.out(gathered)))


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


@pytest.mark.parametrize(
    ("kind", "changes", "count"),
    [
        # Two layers from C to C/2 and back with biases, and C weights and a bias for the positions.
        ("scse", {}, (64 * 32 + 32) + (32 * 64 + 64) + (64 + 1)),
        # Two C × C convolutions, the first with a bias, and a norm; the bases are no parameters.
        ("em", {}, (64 * 64 + 64) + 64 * 64 + 2 * 64),
        # A kernel of one map or of 3 × 3 per channel, and a norm; as many as there are halvings.
        ("gather_excite", {"learned": True}, 64 * 17 * 17 + 2 * 64),
        ("gather_excite", {"learned": True, "extent": 2}, 64 * 9 + 2 * 64),
        ("gather_excite", {"learned": True, "extent": 8}, 3 * (64 * 9 + 2 * 64)),
        ("gather_excite", {}, 0),
    ],
)
def test_parameters_of_the_blocks_are_those_counted_by_hand(kind, changes, count):
    assert sum(each.numel() for each in make(kind, (64, 17, 17), **changes).parameters()) == count


def test_learned_gathering_halves_the_map_with_depthwise_convolutions():
    x = torch.randn(2, 3, 7, 6)
    block = make("gather_excite", (3, 7, 6), learned=True, extent=4).eval()
    conv, norm, relu, second, last = block.gather

    def convolve(y: Tensor, layer: Any) -> Tensor:
        padded = F.pad(y, (1, 1, 1, 1))
        windows = padded.unfold(2, 3, 2).unfold(3, 3, 2)  # (n, c, h/2, w/2, 3, 3)
        return torch.einsum("nchwij,cij->nchw", windows, layer.weight[:, 0])

    expected = last(convolve(relu(norm(convolve(x, conv))), second))
    assert expected.shape[2:] == (2, 2)
    rows, cols = (torch.arange(7) * 2 // 7, torch.arange(6) * 2 // 6)
    torch.testing.assert_close(block(x), x * expected[:, :, rows][..., cols].sigmoid())


def test_learned_gathering_of_the_whole_map_is_a_product_with_it_and_refuses_another_size():
    x = torch.randn(2, 12, 5, 4)
    block = make("gather_excite", FLAT, learned=True).eval()
    conv, norm = block.gather
    gates = norm(torch.einsum("nchw,chw->nc", x, conv.weight[:, 0])[..., None, None]).sigmoid()
    torch.testing.assert_close(block(x), x * gates)
    with pytest.raises(ConfigError, match="learned over another map, 6 × 4 and 5 × 4; write extent: 2, 4"):
        block(torch.randn(2, 12, 6, 4))


def test_the_bases_follow_the_training_batches_and_reconstruct_few_groups_exactly():
    torch.manual_seed(0)
    block = ExpectationMaximization(6, bases=2, steps=10)
    nn.init.eye_(block.embed.weight[:, :, 0, 0].data)
    nn.init.zeros_(block.embed.bias)
    nn.init.eye_(block.out.weight[:, :, 0, 0].data)
    one, other = torch.eye(6)[0], torch.eye(6)[3]  # two groups of positions, of different features
    block.bases = torch.stack([one + 0.1, other + 0.1], 1)
    x = (20 * torch.stack([one] * 8 + [other] * 8, 1)).view(1, 6, 4, 4)
    for _ in range(100):
        block.train()(x)
    torch.testing.assert_close(block.bases, torch.stack([one, other], 1), atol=1e-3, rtol=0)
    saved = block.bases.clone()
    block.eval()(x)
    assert torch.equal(block.bases, saved)


def test_scse_and_em_at_a_3d_point_take_the_depth_as_positions():
    x = torch.randn(2, 12, 7, 5, 4)
    for kind in ("scse", "em"):
        deep, flat = make(kind, DEEP).eval(), make(kind, FLAT).eval()
        flat.load_state_dict(
            {name: value.squeeze(-1) if value.ndim == 5 else value for name, value in deep.state_dict().items()}
        )
        torch.testing.assert_close(deep(x).flatten(2), flat(x.flatten(2)[..., None]).flatten(2))


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


def test_squeeze_excite_equals_plain_tensor_code_at_a_2d_point():
    x = torch.randn(3, *FLAT)
    block = SqueezeExcite(12, reduction=4)
    z = x.sum((2, 3)) / 20
    hidden = (z @ block.reduce.weight.T + block.reduce.bias).clamp(min=0)
    gate = torch.sigmoid(hidden @ block.expand.weight.T + block.expand.bias)
    torch.testing.assert_close(block(x), torch.einsum("nchw,nc->nchw", x, gate))
