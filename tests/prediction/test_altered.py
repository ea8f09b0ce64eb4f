"""Networks of ours that were altered after they were built: no engine may compute what they were before."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import hsi_se
from hsi_se.config.training import TrainSettings
from hsi_se.errors import ConfigError
from hsi_se.models.cost import count_parameters, count_stage_costs
from hsi_se.models.insertion import is_plain
from hsi_se.sampling.patches import PatchDataset
from hsi_se.training.step import Stepper
from tests.prediction.test_dense import SE, Network, make_cube, make_network

PATCH = torch.zeros(1, 1, 14, 9, 9)
ORDERS = ("3d-2d", "2d-3d")


def list_hosts() -> list[tuple[str, str]]:
    """Every submodule of HybridSN that returns features, in both orders."""
    hosts = []
    for order in ORDERS:
        for name, _ in make_network(patch=9, order=order).named_modules():
            if name.startswith(("stages.", "attention.")) or name == "pool":
                hosts.append((order, name))
    return hosts


@pytest.mark.parametrize(("order", "name"), list_hosts())
def test_a_block_anywhere_in_hybridsn_is_in_the_whole_scene_map(order, name):
    plain = make_network(patch=9, order=order)
    model = hsi_se.insert_attention(copy.deepcopy(plain), {name: SE}, example=PATCH)
    cube = make_cube(3, 4)
    logits = hsi_se.predict_logits(model, cube)
    expected = hsi_se.predict_logits(model, cube, engine="patches")
    np.testing.assert_array_equal(logits, expected)
    assert np.abs(expected - hsi_se.predict_logits(plain, cube)).max() > 1e-3


@pytest.mark.parametrize("name", ["attention.fold", "attention.fold.expand"])
def test_a_block_after_a_block_is_in_the_map(name):
    gate = {**SE, "form": "conv"}
    model = hsi_se.insert_attention(make_network(patch=9, attention={"fold": gate}), {name: SE}, example=PATCH)
    cube = make_cube(3, 4)
    expected = hsi_se.predict_logits(model, cube, engine="patches")
    np.testing.assert_allclose(hsi_se.predict_logits(model, cube), expected, rtol=1e-4, atol=1e-4)


def hook(model: nn.Module) -> None:
    model.stages["conv2d"].register_forward_hook(lambda _, __, output: 2 * output)


def replace_relu(model: nn.Module) -> None:
    model.stages["conv3d_2"].relu = nn.GELU()


def normalize_weights(model: nn.Module) -> None:
    weight_norm(model.stages["conv3d_1"].conv)
    with torch.no_grad():
        model.stages["conv3d_1"].conv.parametrizations.weight.original0.mul_(2)


class Doubled(Network):
    """A network derived from ours, with a forward pass of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def derive(model: nn.Module) -> None:
    model.__class__ = Doubled


@pytest.mark.parametrize("alter", [hook, replace_relu, normalize_weights, derive])
def test_other_alterations_are_in_the_map_too(alter):
    model, cube = make_network(patch=9), make_cube(3, 4)
    before = hsi_se.predict_logits(model, cube)
    alter(model)
    logits = hsi_se.predict_logits(model, cube)
    np.testing.assert_allclose(logits, hsi_se.predict_logits(model, cube, engine="patches"), rtol=1e-4, atol=1e-4)
    assert np.abs(logits - before).max() > 1e-3


def test_networks_as_they_are_built_are_plain():
    for order in ORDERS:
        for changes in ({}, {"norm": "none"}, {"pool": "mean"}, {"dense_relu": False}, {"attention": {"conv2d": SE}}):
            assert is_plain(make_network(patch=9, order=order, **changes))


@pytest.mark.parametrize("name", ["stages.conv3d_2.norm", "attention.conv3d_3"])
def test_a_training_step_of_an_altered_network_is_that_of_its_patches(name):
    pixels = np.argwhere(np.ones((12, 12), dtype=bool))
    train = PatchDataset(torch.as_tensor(make_cube(20, 20)), pixels, patch_size=9)
    settings = TrainSettings(epochs=1, flips=False, precision="float32")
    index = torch.arange(len(pixels))
    plain = make_network(patch=9).train()
    assert Stepper(plain, train=train, settings=settings).obstacle == ""
    model = hsi_se.insert_attention(plain, {name: SE}, example=PATCH)
    step = Stepper(model, train=train, settings=settings)
    assert "altered, as by insert_attention" in step.obstacle
    torch.manual_seed(0)
    loss = step(index, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    torch.testing.assert_close(loss, F.cross_entropy(model(train.gather(index)), train.targets[index]))


@pytest.mark.parametrize("name", ["stages.conv3d_2.norm", "attention.fold", "pool"])
def test_costs_count_an_inserted_block(name):
    plain = make_network(patch=9)
    model = hsi_se.insert_attention(copy.deepcopy(plain), {name: SE}, example=PATCH)
    rows, before = count_stage_costs(model), count_stage_costs(plain)
    assert sum(row.num_parameters for row in rows) == count_parameters(model) > count_parameters(plain)
    assert sum(row.macs for row in rows) > sum(row.macs for row in before)


def test_what_returns_no_features_is_refused():
    for name in ("head.0", "stages", "attention"):
        with pytest.raises(ConfigError, match=f"{name} (returns|is called 0 times)"):
            hsi_se.insert_attention(make_network(patch=9), {name: SE}, example=PATCH)
