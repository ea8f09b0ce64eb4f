"""A 3-D convolution as a 2-D one: the same values and gradients as torch's own, whatever is computed together."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from hsi_se.config.model import HybridSN
from hsi_se.models import build_model, convolution
from hsi_se.models.convolution import BatchNorm3d, SpectralConv3d, choose_together, convolve, make_band
from tests.models.test_networks import NETWORKS, build


def divisors(number: int) -> list[int]:
    return [count for count in range(1, number + 1) if number % count == 0]


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    channels=st.integers(1, 4),
    num_out=st.integers(1, 5),
    depth=st.integers(1, 7),
    num_depths=st.integers(1, 8),
    is_innermost=st.booleans(),
)
def test_values_and_gradients_are_those_of_torch(data, channels, num_out, depth, num_depths, is_innermost):
    together = data.draw(st.sampled_from(divisors(num_depths)))
    torch.manual_seed(0)
    x = torch.randn(2, channels, depth + num_depths - 1, 5, 4, dtype=torch.float64)
    if is_innermost:
        x = x.permute(0, 3, 4, 2, 1).contiguous().permute(0, 4, 3, 1, 2)
    weight = torch.randn(num_out, channels, depth, 3, 3, dtype=torch.float64)
    given = [value.requires_grad_() for value in (x, weight, torch.randn(num_out, dtype=torch.float64))]
    expected = F.conv3d(*given)
    found = convolve(*given, together=together)
    torch.testing.assert_close(found, expected)
    after = torch.randn_like(expected)
    for one, other in zip(
        torch.autograd.grad(found, given, after), torch.autograd.grad(expected, given, after), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("together", divisors(6))
def test_the_channels_of_the_result_are_innermost_in_memory(together):
    y = convolve(torch.randn(2, 3, 8, 5, 6), torch.randn(4, 3, 3, 3, 3), None, together=together)
    orders = [(0, 2, 3, 4, 1), (0, 3, 4, 2, 1)]
    assert any(y.permute(order).is_contiguous() for order in orders)


def test_the_band_matrix_by_hand():
    weight = torch.arange(1.0, 7.0).view(1, 2, 3, 1, 1)  # channels (1, 2, 3) and (4, 5, 6)
    band = make_band(weight, 2)[..., 0, 0]
    assert band.tolist() == [[1, 4, 2, 5, 3, 6, 0, 0], [0, 0, 1, 4, 2, 5, 3, 6]]


class _OnGpu(Tensor):
    """A tensor of a CPU that says that it is on a GPU."""

    is_cuda = True

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(func, types, args, kwargs)


@pytest.mark.parametrize(
    ("channels", "num_out", "depth", "num_depths", "expected"),
    [
        (1, 8, 7, 24, 24),
        (8, 16, 5, 20, 4),
        (16, 32, 3, 18, 2),
        (16, 32, 3, 7, 1),
        (16, 128, 3, 18, 1),
        (8, 16, 5, 7, 1),
    ],
)
def test_the_number_of_depths_together_follows_from_the_shape(channels, num_out, depth, num_depths, expected):
    x = torch.randn(1, channels, depth + num_depths - 1, 5, 5)
    weight = torch.randn(num_out, channels, depth, 3, 3)
    assert choose_together(x.as_subclass(_OnGpu), weight) == expected
    assert choose_together(x.expand(2, -1, -1, -1, -1), weight) is None


@pytest.mark.parametrize(("num_images", "together"), [(1, 1), (2, None)])
def test_on_a_cpu_a_single_image_is_convolved_in_2d(num_images, together):
    x, weight = torch.randn(num_images, 2, 9, 12, 11), torch.randn(3, 2, 5, 3, 3)
    assert choose_together(x, weight) == together
    y = convolve(x, weight, None, together=together)
    torch.testing.assert_close(y, nn.functional.conv3d(x, weight), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", ["3d-2d", "2d-3d"])
def test_a_network_computes_and_learns_the_same_both_ways(order, monkeypatch):
    torch.manual_seed(0)
    options = HybridSN.model_validate({"name": "hybridsn", "order": order, "width": 0.5, "dropout": 0.0})
    model = build_model(options, num_bands=14, patch_size=11, num_classes=3).double()
    patches = torch.randn(4, 1, 14, 11, 11, dtype=torch.float64)
    results = []
    for _ in range(2):
        logits = model(patches)
        results.append([logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()))])
        monkeypatch.setattr(
            convolution,
            "choose_together",
            lambda x, weight: max(n for n in divisors(x.shape[2] - weight.shape[2] + 1) if n < 4),
        )
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("order", [(0, 2, 3, 4, 1), (0, 3, 4, 2, 1), (0, 1, 2, 3, 4)])
def test_norm_of_features_in_any_layout_is_torchs(order):
    torch.manual_seed(0)
    x = torch.randn(3, 4, 5, 6, 7, dtype=torch.float64)
    x = x.permute(order).contiguous().permute([order.index(axis) for axis in range(5)]).requires_grad_()
    ours, torchs = BatchNorm3d(4).double(), nn.BatchNorm3d(4).double()
    after = torch.randn_like(x)
    results = []
    for norm, features in ((ours, x.as_subclass(_OnGpu)), (torchs, x)):
        y = norm(features)
        results.append([y, *torch.autograd.grad(y, [x, *norm.parameters()], after), *norm.buffers()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one.as_subclass(Tensor), other)


def test_a_spectral_kernel_longer_than_the_depth_has_its_gradient_in_bfloat16():
    torch.manual_seed(0)
    conv, x = SpectralConv3d(24, 12, (7, 1, 1), padding=(3, 0, 0)), torch.randn(8, 24, 4, 5, 5)

    def differentiate(dtype: torch.dtype) -> Tensor:
        conv.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            y = conv(x)
        y.float().sum().backward()
        return conv.weight.grad.clone()

    expected = differentiate(torch.float32)
    for _ in range(20):
        junk = [torch.full((2**power,), torch.nan) for power in range(8, 18)]  # what uninitialised memory contains
        del junk
        assert (differentiate(torch.bfloat16) - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.parametrize("name", NETWORKS)
def test_no_network_pads_a_spectral_kernel_of_torchs_own(name):
    layers = [each for each in build(name).modules() if isinstance(each, nn.Conv3d) and each.padding[0]]
    assert all(type(each) is SpectralConv3d for each in layers)
    assert bool(layers) == (name in ("ssrn", "dbda"))


def test_a_spectral_convolution_is_torchs_own():
    conv = SpectralConv3d(3, 5, (7, 1, 1), stride=(2, 1, 1), padding=(3, 0, 0)).double()
    x = torch.randn(2, 3, 9, 4, 6, dtype=torch.float64)
    expected = F.conv3d(x, conv.weight, conv.bias, conv.stride, conv.padding)
    torch.testing.assert_close(conv(x), expected)
