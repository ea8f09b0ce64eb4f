"""Attention after hosts of every kind: containers, compiled networks, dtypes, layouts, and mistakes."""

import copy
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import hsi_se
from hsi_se.config.model import list_blocks
from hsi_se.errors import ConfigError

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SE = {"kind": "se"}


class Total(nn.ModuleList):
    """Sums its children."""

    def forward(self, x: Tensor) -> Tensor:
        return sum(child(x) for child in self)


class Joined(nn.ModuleList):
    """Concatenates its children's outputs."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([child(x) for child in self], 1)


class DenseBlock(nn.ModuleDict):
    """Each layer sees the outputs of all layers before it, as in DenseNet."""

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for _, layer in self.items():  # noqa: PERF102  as torchvision writes it
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


class LastIsKnown(nn.Module):
    """Runs its stage, and asks the last layer of the stage for its width."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Sequential(OrderedDict(first=nn.Conv2d(8, 8, 1), last=nn.Conv2d(8, 4, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.stage(x).view(len(x), self.stage[-1].out_channels, *x.shape[2:]) * len(self.stage)


class AllChildren(nn.Module):
    """Sums whatever children it has; nothing can hide a block from it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return sum(child(x) for child in self.children())


class ReadsChildren(nn.Module):
    """A parent whose result depends on the children of its stage, though the stage's output does not."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.stage(x) * (1 + len(list(self.stage.children())))


class LastChild(ReadsChildren):
    """A parent that needs its stage's children to be of one kind."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.stage(x)
        return features + sum(child.weight.sum() for child in self.stage.children())


HOSTS: dict[str, Callable[[], nn.Module]] = {
    "sum": lambda: Total([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)]),
    "concatenation": lambda: Joined([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)]),
    "dense block": lambda: DenseBlock({"a": nn.Conv2d(8, 8, 1), "b": nn.Conv2d(16, 8, 1)}),
    "sequential": lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()),
    "convolution": lambda: nn.Conv2d(8, 8, 1),
    "no weights": lambda: nn.ReLU(),
}


def make_network(host: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(stem=nn.Conv2d(3, 8, 1), host=host)).eval()


# ------------------------------------------------------------------------------------------ containers


@pytest.mark.parametrize("kind", HOSTS)
def test_a_host_returns_its_block_of_what_it_returned_before(kind):
    network = make_network(HOSTS[kind]())
    before, weights = network(IMAGE), list(network.state_dict())
    hsi_se.insert_attention(network, {"host": SE}, example=IMAGE)
    assert not torch.allclose(network(IMAGE), before)
    torch.testing.assert_close(network(IMAGE), network.get_submodule("host.attention")(before))
    assert [name for name in network.state_dict() if not name.startswith("host.attention.")] == weights


@pytest.mark.parametrize("kind", HOSTS)
@pytest.mark.parametrize("copied", ["deepcopy", "pickle", "torch.save"])
def test_every_host_can_be_copied(kind, copied):
    network = hsi_se.insert_attention(make_network(HOSTS[kind]()), {"host": SE}, example=IMAGE)
    if copied == "deepcopy":
        twin = copy.deepcopy(network)
    elif copied == "pickle":
        twin = pickle.loads(pickle.dumps(network))
    else:
        file = io.BytesIO()
        torch.save(network, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    assert type(twin.host) is type(network.host)
    assert torch.equal(twin(IMAGE), network(IMAGE))
    with torch.no_grad():
        twin.get_submodule("host.attention").expand.bias.add_(5)
    assert not torch.allclose(twin(IMAGE), network(IMAGE))


def test_containers_are_indexed_sliced_and_counted_as_before():
    plain = {kind: make_network(HOSTS[kind]()) for kind in ("sum", "dense block", "sequential")}
    gated = {kind: copy.deepcopy(network) for kind, network in plain.items()}
    for network in gated.values():
        hsi_se.insert_attention(network, {"host": SE}, example=IMAGE)
    for kind in ("sum", "sequential"):
        old, new = plain[kind].host, gated[kind].host
        assert len(new) == len(old)
        assert repr(new[-1]) == repr(old[-1])
        assert repr(new[0]) == repr(old[0])
        assert new[-1] is list(new)[-1]
        assert [repr(each) for each in new[:-1]] == [repr(each) for each in old[:-1]]
    old, new = plain["dense block"].host, gated["dense block"].host
    assert len(new) == len(old)
    assert list(new) == list(new.keys()) == list(old)
    assert [repr(each) for each in new.values()] == [repr(each) for each in old.values()]


def test_a_parent_may_index_and_count_its_stage():
    network = make_network(LastIsKnown())
    with torch.no_grad():
        features = network.host.stage(network.stem(IMAGE))
    hsi_se.insert_attention(network, {"host.stage": SE}, example=IMAGE)
    block = network.get_submodule("host.stage.attention")
    torch.testing.assert_close(network(IMAGE), 2 * block(features))
    assert network.host.stage[-1].weight.shape == (4, 8, 1, 1)


@pytest.mark.parametrize(
    ("host", "name", "fault"),
    [
        (AllChildren, "host", "host: the network would run or read the block as one of its own layers"),
        (
            ReadsChildren,
            "host.stage",
            "stem, host.stage: the network would run or read the block as one of its own layers",
        ),
        (LastChild, "host.stage", "stem, host.stage: the network fails with a block there (AttributeError: "),
    ],
)
def test_what_a_block_would_change_besides_its_hosts_output_is_refused_and_nothing_is_left(host, name, fault):
    network = make_network(host())
    classes = [type(module) for module in network.modules()]
    before = network(IMAGE)
    with pytest.raises(ConfigError) as caught:
        hsi_se.insert_attention(network, {"stem": SE, name: SE}, example=IMAGE)
    assert str(caught.value).startswith(f"insert_attention: {fault}")
    assert "\n" not in str(caught.value)
    assert [type(module) for module in network.modules()] == classes
    assert not any("attention" in key for key in network.state_dict())
    assert torch.equal(network(IMAGE), before)
    hsi_se.insert_attention(network, {"stem": SE}, example=IMAGE)  # another submodule, as the message says


def test_a_network_that_draws_numbers_in_its_forward_pass_is_compared_with_the_same_numbers():
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    network = make_network(Noisy())
    state = torch.get_rng_state()
    hsi_se.insert_attention(network, {"host": {"kind": "simam"}}, example=IMAGE)
    assert torch.equal(torch.get_rng_state(), state)


# --------------------------------------------------------------------------------------------- compiled


@pytest.mark.parametrize("kind", HOSTS)
def test_compiled_variants_of_one_network_in_one_process_run_their_own_blocks(kind):
    torch._dynamo.reset()
    base = make_network(HOSTS[kind]())
    compiled = torch.compile(base, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(IMAGE), base(IMAGE))
    gated = hsi_se.insert_attention(copy.deepcopy(base), {"host": SE}, example=IMAGE)
    torch.testing.assert_close(torch.compile(gated, backend="eager", fullgraph=True)(IMAGE), gated(IMAGE))
    assert not torch.allclose(gated(IMAGE), base(IMAGE))
    torch.testing.assert_close(compiled(IMAGE), base(IMAGE))


@pytest.mark.parametrize("kind", HOSTS)
@pytest.mark.parametrize("is_in_place", [True, False])
def test_a_block_inserted_after_compiling_takes_effect(kind, is_in_place):
    torch._dynamo.reset()
    network = make_network(HOSTS[kind]())
    compiled = network
    if is_in_place:
        network.compile(backend="eager")
    else:
        compiled = torch.compile(network, backend="eager")
    with torch.no_grad():
        before = compiled(IMAGE)
        hsi_se.insert_attention(network, {"host": SE}, example=IMAGE)
        torch.testing.assert_close(compiled(IMAGE), network.get_submodule("host.attention")(before))


def test_a_compiled_network_itself_takes_blocks():
    torch._dynamo.reset()
    compiled = torch.compile(make_network(HOSTS["convolution"]()), backend="eager")
    before = compiled(IMAGE)
    hsi_se.insert_attention(compiled, {"_orig_mod.host": SE}, example=IMAGE)
    torch.testing.assert_close(compiled(IMAGE), compiled.get_submodule("_orig_mod.host.attention")(before))


def test_a_compiled_layer_inside_a_network_takes_a_block_by_its_own_name():
    torch._dynamo.reset()
    network = make_network(torch.compile(nn.Conv2d(8, 8, 1), backend="eager"))
    with torch.no_grad():
        before = network(IMAGE)
        hsi_se.insert_attention(network, {"host": SE}, example=IMAGE)
        torch.testing.assert_close(network(IMAGE), network.get_submodule("host._orig_mod.attention")(before))


def test_torch_fx_keeps_blocks_and_a_traced_host_is_refused():
    network = hsi_se.insert_attention(make_network(HOSTS["convolution"]()), {"stem": SE, "host": SE}, example=IMAGE)
    traced = torch.fx.symbolic_trace(network)
    torch.testing.assert_close(traced(IMAGE), network(IMAGE))
    plain = torch.fx.symbolic_trace(make_network(HOSTS["convolution"]()))
    before = plain(IMAGE)
    hsi_se.insert_attention(plain, {"host": SE}, example=IMAGE)
    torch.testing.assert_close(plain(IMAGE), plain.host.attention(before))
    with pytest.raises(ConfigError, match=r"is code of torch.jit or torch.fx, which cannot be changed; insert before"):
        hsi_se.insert_attention(nn.Sequential(plain), {"0": SE}, example=IMAGE)


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
    [IMAGE[:, :2], IMAGE.double(), IMAGE.flatten(1), (IMAGE, IMAGE), "image", None],
    ids=["channels", "dtype", "axes", "two inputs", "text", "nothing"],
)
def test_an_example_that_the_network_does_not_take_is_one_line(example):
    network = make_network(nn.ReLU()).train()
    with pytest.raises(ConfigError) as caught:
        hsi_se.insert_attention(network, {"host": SE}, example=example)
    assert str(caught.value).startswith("insert_attention: example = ")
    assert "the network does not run on it (" in str(caught.value)
    assert "\n" not in str(caught.value)
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
