"""Attention after hosts of every kind: containers, and compiled or traced networks."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

import hsi_se
from hsi_se.errors import ConfigError
from tests.models.hosts import HOSTS, IMAGE, SE, AllChildren, LastChild, LastIsKnown, ReadsChildren, make_network

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


def test_moving_averages_and_checkpoints_keep_blocks():
    network = hsi_se.insert_attention(make_network(HOSTS["convolution"]()), {"stem": SE, "host": SE}, example=IMAGE)
    averaged = AveragedModel(network)
    averaged.update_parameters(network)
    torch.testing.assert_close(averaged(IMAGE), network(IMAGE))
    again = checkpoint(network, IMAGE, use_reentrant=False)
    weights = [*network.parameters()]
    for one, other in zip(*(torch.autograd.grad(y.sum(), weights) for y in (again, network(IMAGE))), strict=True):
        torch.testing.assert_close(one, other)


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
