"""Squeeze-and-excitation against plain tensor code, hand-made limits, and its twin."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hsi_se.attention.nonlocal_block import NonLocal
from hsi_se.attention.squeeze_excite import SqueezeExcite

SHAPES = {"2d": (3, 12, 5, 4), "3d": (3, 12, 7, 5, 4)}


@pytest.mark.parametrize("axis", ["feature", "band"])
@pytest.mark.parametrize("squeeze", ["mean", "max"])
@pytest.mark.parametrize("bias", [True, False])
def test_gate_equals_plain_tensor_code_at_a_3d_point(axis, squeeze, bias):
    x = torch.randn(SHAPES["3d"])
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


def test_gate_equals_plain_tensor_code_at_a_2d_point():
    x = torch.randn(SHAPES["2d"])
    block = SqueezeExcite(12, reduction=4)
    z = x.sum((2, 3)) / 20
    hidden = (z @ block.reduce.weight.T + block.reduce.bias).clamp(min=0)
    gate = torch.sigmoid(hidden @ block.expand.weight.T + block.expand.bias)
    torch.testing.assert_close(block(x), torch.einsum("nchw,nc->nchw", x, gate))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_and_convolutional_forms_are_twins(shape, bias):
    x = torch.randn(shape)
    linear = SqueezeExcite(12, reduction=4, bias=bias, form="linear")
    conv = SqueezeExcite(12, reduction=4, bias=bias, form="conv")
    conv.load_state_dict(
        {
            name: value[:, :, None, None] if value.ndim == 2 else value
            for name, value in linear.state_dict().items()
        }
    )
    assert (conv(x) - linear(x)).abs().max() <= 1e-6


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_zero_weights_halve_the_input(shape):
    block = SqueezeExcite(12)
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(shape)
    torch.testing.assert_close(block(x), x / 2)


@pytest.mark.parametrize(
    ("channels", "reduction", "hidden"),
    [(576, 16, 36), (64, 16, 4), (8, 16, 1), (8, 1000, 1), (24, 16, 2), (30, 16, 2), (64, 1, 64)],
)
def test_hidden_width_is_the_rounded_quotient_and_never_zero(channels, reduction, hidden):
    assert SqueezeExcite(channels, reduction=reduction).reduce.weight.shape == (hidden, channels)


@pytest.mark.parametrize("form", ["linear", "conv"])
@pytest.mark.parametrize("axis", ["feature", "band"])
def test_every_parameter_gets_a_gradient(form, axis):
    block = SqueezeExcite({"feature": 12, "band": 7}[axis], reduction=1, form=form, axis=axis)
    with torch.no_grad():  # a hidden unit that is dead by chance would have none
        block.reduce.weight.abs_()
        block.reduce.bias.abs_()
    block(torch.rand(SHAPES["3d"])).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in block.parameters())


def test_excitation_lies_between_zero_and_one():
    block = SqueezeExcite(12)
    gates = block.excitation(10 * torch.randn(SHAPES["3d"]))
    assert gates.shape == (3, 12)
    assert ((gates > 0) & (gates < 1)).all()


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
