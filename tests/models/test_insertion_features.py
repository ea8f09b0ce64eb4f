"""Attention after features of other dtypes and layouts, after several inputs, and mistakes."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import hsi_se
from hsi_se.config.model import list_blocks
from hsi_se.errors import ConfigError
from tests.models.hosts import HOSTS, IMAGE, SE, make_network

# ------------------------------------------------------------------------- dtypes, lazy layers, caches


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [block.kind for block in list_blocks()])
def test_a_block_takes_the_dtype_of_its_network(dtype, kind):
    network = make_network(HOSTS["convolution"]()).to(dtype)
    hsi_se.insert_attention(network, {"host": {"kind": kind}}, example=IMAGE.to(dtype))
    assert network(IMAGE.to(dtype)).dtype == dtype
    assert {value.dtype for value in network.state_dict().values() if value.is_floating_point()} == {dtype}


def test_under_autocast_inside_the_network_a_block_has_the_dtype_of_the_weights():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.conv(x)

    network = hsi_se.insert_attention(Mixed(), {"conv": SE}, example=IMAGE)
    assert network.get_submodule("conv.attention").reduce.weight.dtype == torch.float32
    assert network(IMAGE).dtype == torch.bfloat16


def test_lazy_layers_are_initialised_and_trained_with_their_block():
    network = nn.Sequential(nn.LazyConv2d(8, 1), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2))
    hsi_se.insert_attention(network, {"0": SE, "1": SE}, example=IMAGE)
    network(IMAGE).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network[0].in_channels == 3


def test_a_tensor_that_is_kept_from_the_first_forward_pass_can_be_trained_with():
    class Positions(nn.Module):
        kept: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.kept is None:
                self.kept = torch.linspace(0, 1, x.shape[-1])
            return x * self.kept

    network = make_network(Positions())
    with torch.inference_mode():  # whatever mode the caller is in
        hsi_se.insert_attention(network, {"host": SE}, example=IMAGE.clone())
    network(IMAGE).sum().backward()
    assert network.get_submodule("host.attention").expand.weight.grad is not None


# ------------------------------------------------------------------------------ layouts, several inputs


class Channelwise(nn.Module):
    """Layers on the last axis of images with channels last, as in Swin and ConvNeXt; `is_back` permutes back."""

    def __init__(self, *, is_back: bool) -> None:
        super().__init__()
        self.norm, self.dense, self.act, self.is_back = nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), is_back

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.dense(self.norm(x.permute(0, 2, 3, 1))))
        return x.permute(0, 3, 1, 2) if self.is_back else x


@pytest.mark.parametrize("name", ["host", "host.norm", "host.dense", "host.act"])
def test_channels_last_are_refused_without_an_axis_and_gated_with_one(name):
    network, image = make_network(Channelwise(is_back=False)), IMAGE[..., :5, :6]
    features = network(image)
    with pytest.raises(ConfigError, match=rf"{name} returns .*\(2, 5, 6, 8\) .*channels are last; write axis=-1"):
        hsi_se.insert_attention(network, {name: SE}, example=image)
    gated = hsi_se.insert_attention(copy.deepcopy(network), {name: SE}, example=image, axis=-1)
    block = gated.get_submodule(f"{name}.attention")
    assert block.reduce.in_features == 8
    torch.testing.assert_close(copy.deepcopy(gated)(image), gated(image))
    if name in ("host", "host.act"):
        gates = block.gate(features.mean((1, 2)))
        torch.testing.assert_close(gated(image), features * gates[:, None, None])


def test_features_permuted_back_have_their_channels_first():
    network, image = make_network(Channelwise(is_back=True)), IMAGE[..., :5, :6]
    features = network(image)
    hsi_se.insert_attention(network, {"host": SE}, example=image)
    torch.testing.assert_close(network(image), network.get_submodule("host.attention")(features))


def test_a_layout_that_the_sizes_cannot_tell_is_asked_for():
    network = make_network(Channelwise(is_back=True))
    with pytest.raises(ConfigError, match="whose channels are axis 1 or the last; write axis=1 or axis=-1"):
        hsi_se.insert_attention(network, {"host": SE}, example=IMAGE)
    hsi_se.insert_attention(network, {"host": SE}, example=IMAGE, axis=1)
    with pytest.raises(ConfigError, match="axis = 2: the channels must be the second or the last axis; write 1 or -1"):
        hsi_se.insert_attention(network, {"stem": SE}, example=IMAGE, axis=2)


def test_memory_in_channels_last_order_is_kept():
    network = make_network(HOSTS["convolution"]()).to(memory_format=torch.channels_last)
    image = IMAGE.to(memory_format=torch.channels_last)
    hsi_se.insert_attention(network, {"host": SE}, example=image)
    assert network(image).is_contiguous(memory_format=torch.channels_last)


class Fusion(nn.Module):
    """A host of two inputs, one of them by name."""

    def __init__(self) -> None:
        super().__init__()
        self.join = Sum()
        self.left, self.right = nn.Conv2d(3, 8, 1), nn.Conv2d(1, 8, 1)

    def forward(self, image: Tensor, heights: Tensor) -> Tensor:
        return self.join(self.left(image), other=self.right(heights))


class Sum(nn.Module):
    def forward(self, x: Tensor, *, other: Tensor) -> Tensor:
        return x + other


def test_networks_and_hosts_with_two_inputs():
    network, inputs = Fusion(), (IMAGE, IMAGE[:, :1])
    before = network(*inputs)
    hsi_se.insert_attention(network, {"join": SE}, example=inputs)
    torch.testing.assert_close(network(*inputs), network.join.attention(before))


def test_any_name_of_a_shared_module_works_and_two_of_them_are_one():
    class Once(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(3, 8, 1)
            self.two = self.one

        def forward(self, x: Tensor) -> Tensor:
            return self.two(x)

    shared = Once()
    before = shared(IMAGE)
    with pytest.raises(ConfigError, match="two is another name of a submodule that is given, too; name it once"):
        hsi_se.insert_attention(shared, {"one": SE, "two": SE}, example=IMAGE)
    hsi_se.insert_attention(shared, {"two": SE}, example=IMAGE)
    torch.testing.assert_close(shared(IMAGE), shared.one.attention(before))


# --------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"kind": "sse"}, "host: kind: did you mean 'scse'? choose from 'se', 'eca', "),
        ({"kind": "se", "reductoin": 4}, "host: reductoin: unknown setting; did you mean 'reduction'?"),
        ({"kind": "se", "reduction": 0}, "host: reduction: Input should be greater than 0"),
        ({}, "host: kind: Unable to extract tag using discriminator 'kind'"),
        ("se", "host: kind: Input should be a valid dictionary"),
        (None, "host: kind: "),
        (nn.Identity(), "host: kind: "),
    ],
    ids=str,
)
def test_wrong_settings_are_one_line(block, words):
    with pytest.raises(ConfigError) as caught:
        hsi_se.insert_attention(make_network(nn.ReLU()), {"host": block}, example=IMAGE)
    assert str(caught.value).startswith(f"insert_attention: {words}")
    assert str(caught.value).endswith("; write settings such as {'kind': 'se'}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "example",
    [IMAGE[:, :2], IMAGE.double(), IMAGE.flatten(1), (IMAGE, IMAGE), "image", None, [IMAGE, IMAGE], {"x": IMAGE}],
    ids=["channels", "dtype", "axes", "two inputs", "text", "nothing", "list", "mapping"],
)
def test_an_example_that_the_network_does_not_take_is_one_line(example):
    network = make_network(nn.ReLU()).train()
    with pytest.raises(ConfigError) as caught:
        hsi_se.insert_attention(network, {"host": SE}, example=example)
    assert str(caught.value).startswith("insert_attention: example = ")
    assert "the network does not run on it (" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert network.training
    assert network.host.training
    assert not any(module._forward_hooks for module in network.modules())


def test_whole_numbers_are_no_features():
    class Index(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.long()

    with pytest.raises(ConfigError, match=r"host returns a tensor \(2, 8, 8, 8\) of int64, not features"):
        hsi_se.insert_attention(make_network(Index()), {"host": SE}, example=IMAGE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_script_modules_are_refused_wherever_they_are():
    scripted = torch.jit.script(make_network(nn.ReLU()))
    for network, name in ((scripted, "host"), (make_network(scripted.host), "host")):
        with pytest.raises(ConfigError, match=r"is code of torch.jit or torch.fx, which cannot be changed; insert"):
            hsi_se.insert_attention(network, {name: SE}, example=IMAGE)
    beside = nn.Sequential(scripted.stem, nn.Conv2d(8, 8, 1))
    before = beside(IMAGE)
    hsi_se.insert_attention(beside, {"1": SE}, example=IMAGE)
    torch.testing.assert_close(beside(IMAGE), beside[1].attention(before))


def test_a_block_that_cannot_run_leaves_nothing_behind():
    class Half(nn.Module):
        """Returns another dtype than that of any weight of the network."""

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x).half()

    network = make_network(Half())
    keys = list(network.state_dict())
    with pytest.raises(ConfigError, match=r"host: the network fails with a block there \(RuntimeError: "):
        hsi_se.insert_attention(network, {"stem": SE, "host": SE}, example=IMAGE)
    assert list(network.state_dict()) == keys
    assert type(network.stem) is nn.Conv2d
