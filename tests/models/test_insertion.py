"""Attention in networks that are not ours: values and names kept, copies apart, mistakes named."""

import copy
import pickle
from collections import OrderedDict

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import hsi_se
from hsi_se.attention.squeeze_excite import SqueezeExcite
from hsi_se.config.model import Cbam, NonLocal, SeResNet, StripPooling
from hsi_se.config.model import SqueezeExcite as Se
from hsi_se.errors import ConfigError

IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SE = Se(kind="se")


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.bn(self.conv(x))).relu()


class Around(nn.Sequential):
    """Names the children that it runs, so that a new one is not among them."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self[1](self[0](x))


class Inside(nn.Sequential):
    """Runs all its children as `nn.Sequential` does, which leaves the block out."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 16, 3, stride=2, padding=1),
            layer=nn.Sequential(Residual(16), Residual(16)),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(16, 4),
        )
    ).eval()


def test_block_acts_after_the_submodule_and_other_weights_keep_names_and_values():
    plain = make_network()
    gated = hsi_se.insert_attention(make_network(), {"layer.1.bn": SE}, example=IMAGE)
    added = gated.state_dict().keys() - plain.state_dict().keys()
    assert {name.rpartition(".attention.")[0] for name in added} == {"layer.1.bn"}
    for name, value in plain.state_dict().items():
        assert torch.equal(gated.state_dict()[name], value)

    x = plain.layer[0](plain.stem(IMAGE))
    block = gated.get_submodule("layer.1.bn.attention")
    inner = plain.layer[1]
    expected = plain.head((x + block(inner.bn(inner.conv(x)))).relu().mean((2, 3)))
    torch.testing.assert_close(gated(IMAGE), expected)


def test_block_after_a_sequential_acts_once_on_its_output():
    plain, gated = make_network(), make_network()
    hsi_se.insert_attention(gated, {"layer": SE}, example=IMAGE)
    block = gated.get_submodule("layer.attention")
    expected = plain.head(block(plain.layer(plain.stem(IMAGE))).mean((2, 3)))
    torch.testing.assert_close(gated(IMAGE), expected)


@pytest.mark.parametrize("kind", [Around, Inside])
def test_a_container_with_a_forward_of_its_own_gets_its_block_once(kind):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 1), kind(nn.Conv2d(16, 16, 1), nn.ReLU())).eval()
    before = network(IMAGE)
    hsi_se.insert_attention(network, {"1": SE}, example=IMAGE)
    block = network.get_submodule("1.attention")
    torch.testing.assert_close(network(IMAGE), block(before))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_has_a_block_of_its_own(copied):
    network = hsi_se.insert_attention(make_network(), {"stem": SE, "layer.0": Cbam(kind="cbam")}, example=IMAGE)
    before = network(IMAGE)
    twin = copied(network)
    assert torch.equal(twin(IMAGE), before)
    with torch.no_grad():
        twin.get_submodule("stem.attention").expand.bias.add_(5)
    assert not torch.allclose(twin(IMAGE), before)
    assert torch.equal(network(IMAGE), before)


def test_weights_survive_a_state_dict_and_an_older_checkpoint_loads_beside_the_new_block():
    blocks = {"layer.1.bn": SE}
    trained = hsi_se.insert_attention(make_network(), blocks, example=IMAGE)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.01)
    other = hsi_se.insert_attention(make_network(), blocks, example=IMAGE)
    other.load_state_dict(trained.state_dict())
    assert torch.equal(other(IMAGE), trained(IMAGE))
    missing, unexpected = other.load_state_dict(make_network().state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("layer.1.bn.attention.") for name in missing)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_network_can_be_exported():
    network = hsi_se.insert_attention(make_network(), {"stem": SE, "layer": SE}, example=IMAGE)
    exported = torch.export.export(network, (IMAGE,)).module()
    torch.testing.assert_close(exported(IMAGE), network(IMAGE))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_dynamo", [True, False])
def test_both_onnx_exporters_write_inserted_blocks_for_any_batch(is_dynamo, tmp_path):
    blocks = {"stem": SE, "layer.0": {"kind": "em"}, "layer.0.bn": {"kind": "scse", "start": "identity"}}
    blocks["layer.1"] = {"kind": "gather_excite", "learned": True, "extent": 4}
    network = hsi_se.insert_attention(make_network(), blocks, example=IMAGE)
    with torch.no_grad():
        network.get_submodule("layer.0.bn.attention").strength.fill_(0.5)
    axes = {"dynamic_axes": {"x": {0: "n"}}}
    if is_dynamo:
        axes = {"dynamic_shapes": ({0: torch.export.Dim.DYNAMIC},)}
    path = tmp_path / "network.onnx"
    torch.onnx.export(network, (IMAGE,), path, dynamo=is_dynamo, input_names=["x"], verbose=False, **axes)
    session = onnxruntime.InferenceSession(path)
    images = torch.randn(5, *IMAGE.shape[1:])
    (outputs,) = session.run(None, {"x": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(outputs), network(images), rtol=1e-4, atol=1e-5)


def test_the_block_is_trained_with_the_rest_and_follows_its_mode():
    network = make_network().train()
    hsi_se.insert_attention(network, {"layer.0.bn": NonLocal(kind="nonlocal")}, example=IMAGE)
    assert network.training
    block = network.get_submodule("layer.0.bn.attention")
    assert block.training
    network(IMAGE).sum().backward()
    assert block.norm.weight.grad is not None
    assert not network.eval().get_submodule("layer.0.bn.attention").training


def test_the_dry_run_moves_no_running_statistics():
    network = make_network().train()
    hsi_se.insert_attention(network, {"layer.0.bn": SE}, example=IMAGE)
    assert torch.equal(network.layer[0].bn.running_mean, torch.zeros(16))


def test_a_gate_after_every_block_of_a_resnet_of_ours():
    sizes = {"num_bands": 3, "patch_size": 32, "num_classes": 10}
    network = hsi_se.build_model(SeResNet(name="se_resnet", attention={}), **sizes)
    blocks = {f"stages.layer{stage}.{block}.branch.1.norm": SE for stage in (1, 2, 3, 4) for block in (0, 1)}
    gated = hsi_se.insert_attention(copy.deepcopy(network), blocks, example=IMAGE)
    own = hsi_se.build_model(SeResNet(name="se_resnet"), **sizes)
    assert sum(p.numel() for p in gated.parameters()) == sum(p.numel() for p in own.parameters())


# A small detector's backbone as a list of rows: where the input comes from, how often, what, with what.
ROWS = [
    [-1, 1, "Conv", [3, 8, 3, 2]],
    [-1, 1, "Conv", [8, 16, 3, 2]],
    [-1, 2, "Residual", [16]],
    [-1, 1, "Conv", [16, 32, 3, 2]],
    [-1, 2, "Residual", [32]],
    [-1, 1, "Conv", [32, 64, 3, 2]],
    [-1, 1, "Residual", [64]],
    [-1, 1, "Conv", [64, 64, 1, 1]],
    [-1, 1, "Residual", [64]],
    [[-1, 6], 1, "Concat", []],
]


class Backbone(nn.Module):
    """The network that such rows describe."""

    def __init__(self, rows: list[list]) -> None:
        super().__init__()
        modules = {
            "Conv": lambda c1, c2, k, s: nn.Sequential(nn.Conv2d(c1, c2, k, s, k // 2), nn.SiLU()),
            "Residual": Residual,
            "Concat": nn.Identity,
            "SqueezeExcite": SqueezeExcite,
        }
        self.sources = [source for source, *_ in rows]
        self.layers = nn.ModuleList(
            nn.Sequential(*(modules[name](*args) for _ in range(number))) for _, number, name, args in rows
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        for source, layer in zip(self.sources, self.layers, strict=True):
            found = [outputs[s] if outputs else x for s in ([source] if isinstance(source, int) else source)]
            outputs.append(layer(found[0] if len(found) == 1 else torch.cat(found, 1)))
        return outputs


@pytest.mark.parametrize("channels", [[64], [64, 64]], ids=["input", "input and output"])
def test_one_row_adds_the_gate_after_the_ninth_layer_of_a_detectors_backbone(channels):
    rows = [*ROWS[:9], [-1, 1, "SqueezeExcite", channels], *ROWS[9:]]
    torch.manual_seed(0)
    by_row = Backbone(rows).eval()
    inserted = Backbone(ROWS).eval()
    hsi_se.insert_attention(inserted, {"layers.8": SE}, example=IMAGE)
    weights = {name.replace("layers.9.0.", "layers.8.attention."): value for name, value in by_row.state_dict().items()}
    inserted.load_state_dict(weights)
    torch.testing.assert_close(inserted(IMAGE)[-1], by_row(IMAGE)[-1])
    assert inserted(IMAGE)[-1].shape == (2, 128, 2, 2)


# -------------------------------------------------------------------------------------- mistakes


def refuse(network: nn.Module, name: str, example: Tensor = IMAGE, block: object = SE) -> str:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ConfigError) as caught:
        hsi_se.insert_attention(network, {name: block}, example=example)
    assert network.state_dict().keys() == before.keys()
    assert not any(module._forward_hooks for module in network.modules())
    return str(caught.value)


def test_an_unknown_name_is_answered_with_the_nearest():
    message = refuse(make_network(), "layer.1.bn2")
    assert message.startswith("insert_attention: no submodule 'layer.1.bn2'; the closest are layer.1.bn, ")


def test_a_transformer_encoder_returns_no_map():
    layer = nn.TransformerEncoderLayer(8, 2, batch_first=True)
    network = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    message = refuse(network, "layers.1", torch.randn(2, 5, 8))
    assert "layers.1 returns a tensor (2, 5, 8) of float32, not features (n, c, h, w)" in message


def test_a_submodule_that_returns_no_tensor_is_refused():
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attend(x, x, x)[0]

    assert "attend returns a tuple, not features" in refuse(Attending(), "attend", torch.randn(2, 5, 8))


def test_a_submodule_that_is_called_twice_or_never_is_refused():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.spare = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x))

    assert "conv is called 2 times" in refuse(Twice(), "conv")
    assert "spare is called 0 times" in refuse(Twice(), "spare")


def test_a_block_that_does_not_fit_the_features_is_refused():
    network = nn.Sequential(nn.Conv3d(1, 4, 3))
    message = refuse(network, "0", torch.randn(1, 1, 5, 8, 8), StripPooling(kind="strip_pooling"))
    assert message.startswith("insert_attention: strip_pooling after 0: kind: needs 2-D features")


def test_a_second_block_at_one_place_is_refused():
    network = hsi_se.insert_attention(make_network(), {"stem": SE}, example=IMAGE)
    with pytest.raises(ConfigError, match="stem already has an attribute named attention"):
        hsi_se.insert_attention(network, {"stem": SE}, example=IMAGE)
