"""A batch whose patches share their work against the same patches one by one, by plain torch."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hsi_se.config.model import Cnn3d, HybridSN, SeResNet
from hsi_se.config.training import TrainSettings
from hsi_se.models import build_model
from hsi_se.sampling.patches import NUM_SYMMETRIES, PatchDataset, pad_cube
from hsi_se.training import step as step_module
from hsi_se.training.overlap import average_windows, count_coverage, gather_windows, normalize
from hsi_se.training.shared_step import share_forward
from hsi_se.training.step import Stepper, draw_area

NUM_CLASSES, NUM_BANDS = 4, 14
CUBE = np.random.default_rng(0).normal(1.0, 2.0, size=(13, 17, NUM_BANDS))
SE = {"kind": "se", "reduction": 4}
NETWORKS = {
    "no attention": {},
    "gates around the 2-D convolution": {"attention": {"fold": SE, "conv2d": SE}},
    "a gate at conv2d": {"attention": {"conv2d": SE}},
    "a gate at conv3d_3": {"attention": {"conv3d_3": SE}},
    "a gate of depths at conv3d_3": {"attention": {"conv3d_3": SE | {"axis": "band"}}},
    "a gate at conv3d_1": {"attention": {"conv3d_1": {"kind": "eca"}}},
    "a gate by the maximum": {"attention": {"fold": SE | {"squeeze": "max"}}},
    "cbam at fold": {"attention": {"fold": {"kind": "cbam"}}},
    "no norm": {"norm": "none", "attention": {"fold": SE}},
    "gates that start as the identity": {"width": 0.25, "attention": {"fold": {**SE, "start": "identity"}}},
    "mean pool": {"pool": "mean", "width": 0.5},
    "2-D first": {"order": "2d-3d", "width": 0.25},
    "2-D first, gates": {"order": "2d-3d", "width": 0.25, "attention": {"fold": SE, "conv3d_2": SE}},
}


def make_dataset(*, patch_size: int = 9, padding: str = "reflect", num_pixels: int = 24) -> PatchDataset:
    """Pixels in two corners of the scene, so that patches overlap, reach the padding and leave a gap."""
    rng = np.random.default_rng(1)
    corner = rng.permutation(np.argwhere(np.ones((5, 5), bool)))[: num_pixels // 2]
    pixels = np.concatenate([corner, np.array([12, 16]) - corner])
    return PatchDataset(
        pad_cube(CUBE, patch_size=patch_size, padding=padding),
        pixels,
        patch_size=patch_size,
        targets=rng.integers(NUM_CLASSES, size=len(pixels)),
    )


def make_network(name: str, *, patch_size: int = 9) -> nn.Module:
    config = HybridSN.model_validate({"name": "hybridsn", "dropout": 0.0, **NETWORKS[name]})
    model = build_model(config, num_bands=NUM_BANDS, patch_size=patch_size, num_classes=NUM_CLASSES, seed=3)
    return model.double().train()


def find_state(model: nn.Module, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Logits, the gradient of every weight, and the running statistics."""
    torch.autograd.backward(F.cross_entropy(logits, targets, label_smoothing=0.1))
    return {"output": logits.detach(), **list_results(model)}


def list_results(model: nn.Module) -> dict[str, Tensor]:
    """The gradient of every weight, and the running statistics."""
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    return {**gradients, **dict(model.named_buffers())}


def measure_distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference, relative to the largest value of its kind.

    Gradients are one kind: that of a bias in front of a batch norm is 0 but for rounding.
    """
    largest = max(float(value.abs().max()) for name, value in other.items() if name.endswith("weight"))
    return max(
        float((one[name] - other[name]).abs().max())
        / (largest if "running" not in name and name != "output" else float(other[name].abs().max()))
        for name in other
        if not name.endswith("tracked")
    )


@pytest.mark.parametrize("padding", ["reflect", "zero"])
@pytest.mark.parametrize("patch_size", [9, 11])
@pytest.mark.parametrize("name", NETWORKS)
def test_sharing_gives_the_gradients_and_statistics_of_the_patches_one_by_one(name, patch_size, padding):
    patches = make_dataset(patch_size=patch_size, padding=padding)
    index = torch.arange(len(patches))
    model = make_network(name, patch_size=patch_size)
    twin = copy.deepcopy(model)
    plain = TrainSettings(epochs=1, flips=False)
    area, corners = draw_area(patches, index, settings=plain, generator=torch.Generator())
    shared = find_state(model, share_forward(model, area, corners), patches.targets)
    apart = find_state(twin, twin(patches.gather(index)), patches.targets)
    assert measure_distance(shared, apart) < 1e-10
    assert all(torch.equal(shared[key], apart[key]) for key in apart if key.endswith("tracked"))


def test_the_plain_3d_network_shares_too():
    model = build_model(
        Cnn3d(name="cnn3d", dropout=0.0), num_bands=NUM_BANDS, patch_size=9, num_classes=NUM_CLASSES
    ).double()
    twin, patches = copy.deepcopy(model), make_dataset()
    index = torch.arange(len(patches))
    area, corners = draw_area(
        patches, index, settings=TrainSettings(epochs=1, flips=False), generator=torch.Generator()
    )
    shared = find_state(model, share_forward(model, area, corners), patches.targets)
    assert measure_distance(shared, find_state(twin, twin(patches.gather(index)), patches.targets)) < 1e-10


@pytest.mark.parametrize("name", ["no attention", "gates around the 2-D convolution"])
def test_in_float32_sharing_differs_no_more_than_another_order_of_the_batch(name):
    patches = make_dataset()
    patches.padded = patches.padded.float()
    index, other = torch.arange(len(patches)), torch.randperm(len(patches), generator=torch.Generator())
    exact = make_network(name)
    models = [copy.deepcopy(exact).float() for _ in range(3)]
    area, corners = draw_area(
        patches, index, settings=TrainSettings(epochs=1, flips=False), generator=torch.Generator()
    )
    expected = find_state(exact, exact(patches.gather(index).double()), patches.targets)
    errors = [
        measure_distance(find_state(model, logits, targets), expected | {"output": expected["output"][order]})
        for model, logits, targets, order in (
            (models[0], share_forward(models[0], area, corners), patches.targets, index),
            (models[1], models[1](patches.gather(index)), patches.targets, index),
            (models[2], models[2](patches.gather(other)), patches.targets[other], other),
        )
    ]
    assert errors[0] < 4 * max(errors[1:])
    assert errors[0] < 1e-5


def test_a_location_that_is_not_counted_would_be_noticed(monkeypatch):
    """The check of the gradients can fail: with every location counted once, batch norm differs."""
    monkeypatch.setattr(
        "hsi_se.training.shared_step.count_coverage",
        lambda corners, *, shape, size, like: torch.ones(shape, dtype=like.dtype),  # noqa: ARG005
    )
    with pytest.raises(AssertionError):
        test_sharing_gives_the_gradients_and_statistics_of_the_patches_one_by_one("no attention", 9, "zero")


# -------------------------------------------------------------------------------------- its parts


@settings(deadline=None, max_examples=30)
@given(
    counts=st.lists(st.integers(0, 5), min_size=2, max_size=6).filter(lambda counts: sum(counts) > 1),
    depth=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_a_counted_norm_is_batch_norm_on_repeated_locations(counts, depth, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 3, depth, 1, len(counts), generator=generator, dtype=torch.float64, requires_grad=True)
    pull = torch.randn(1, 3, depth, 1, len(counts), generator=generator, dtype=torch.float64)
    counted, plain = nn.BatchNorm3d(3).double(), nn.BatchNorm3d(3).double()
    for norm in (counted, plain):
        nn.init.uniform_(norm.weight, 0.5, 2, generator=torch.Generator().manual_seed(seed))
        nn.init.uniform_(norm.bias, -1, 1, generator=torch.Generator().manual_seed(seed))
    repeats = torch.tensor(counts)
    y = normalize(x, counted, counts=repeats.double()[None], total=depth * int(repeats.sum()))
    expected = plain(x.repeat_interleave(repeats, dim=4))
    torch.testing.assert_close(y.repeat_interleave(repeats, dim=4), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(counted.running_mean, plain.running_mean)
    torch.testing.assert_close(counted.running_var, plain.running_var)
    # A location's gradient comes summed over its copies.
    (y * (pull * repeats)).sum().backward()
    got, x.grad = x.grad, None
    (expected * pull.repeat_interleave(repeats, dim=4)).sum().backward()
    torch.testing.assert_close(got, x.grad, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(counted.weight.grad, plain.weight.grad, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(counted.bias.grad, plain.bias.grad, rtol=1e-8, atol=1e-8)


CORNERS = [(0, 0), (1, 2), (1, 2), (3, 1)]


def test_gathers_and_window_means_have_the_gradients_that_differences_give():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5, 6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: gather_windows(f, CORNERS, size=2), (features,))
    assert torch.autograd.gradcheck(lambda f: average_windows(f, CORNERS, size=2), (features,))


def test_gathered_windows_are_slices_of_the_features():
    features = torch.randn(5, 6, 3, dtype=torch.float64)
    expected = torch.stack([features[row : row + 2, col : col + 2] for row, col in CORNERS])
    assert torch.equal(gather_windows(features, CORNERS, size=2), expected)
    torch.testing.assert_close(average_windows(features, CORNERS, size=2), expected.mean((1, 2)))


def test_a_gpu_goes_patch_by_patch():
    settings = TrainSettings(epochs=1, vary_by="batch")
    obstacles = {
        kind: step_module._explain_obstacle(make_network(next(iter(NETWORKS))), settings, device=torch.device(kind))
        for kind in ("cpu", "cuda")
    }
    assert obstacles["cpu"] == ""
    assert "a GPU replays the network on each patch" in obstacles["cuda"]


def test_coverage_is_counted_as_by_hand():
    expected = np.zeros((5, 6))
    for row, col in CORNERS:
        expected[row : row + 2, col : col + 2] += 1
    found = count_coverage(CORNERS, shape=(5, 6), size=2, like=torch.zeros(()))
    assert np.array_equal(found, expected)


# ------------------------------------------------------------------------- a batch varied as one


def test_a_batch_is_turned_as_one_by_each_of_the_eight_symmetries():
    patches = make_dataset()
    index = torch.arange(len(patches))
    every = [patches.gather(index, symmetries=torch.full_like(index, s)) for s in range(NUM_SYMMETRIES)]
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(60):
        area, corners = draw_area(
            patches, index, settings=TrainSettings(epochs=1, vary_by="batch"), generator=generator
        )
        cut = gather_windows(area, corners, size=9).permute(0, 3, 1, 2).unsqueeze(1)
        seen.add(next(s for s, turned in enumerate(every) if torch.equal(cut, turned)))
    assert seen == set(range(NUM_SYMMETRIES))


def test_an_area_leaves_out_what_no_patch_covers():
    patches = make_dataset()  # 21 × 25 padded, two corners of 13 × 13
    area, corners = draw_area(
        patches, torch.arange(24), settings=TrainSettings(epochs=1, flips=False), generator=torch.Generator()
    )
    assert area.shape[:2] == (21, 25)
    area, corners = draw_area(
        patches, torch.arange(12), settings=TrainSettings(epochs=1, flips=False), generator=torch.Generator()
    )
    assert area.shape[0] <= 13
    assert torch.equal(
        gather_windows(area, corners, size=9).permute(0, 3, 1, 2)[:, None], patches.gather(torch.arange(12))
    )


def test_patches_of_a_batch_have_the_same_noise_where_they_overlap():
    patches = make_dataset()
    index = torch.zeros(2, dtype=torch.int64)  # one pixel twice
    noisy = TrainSettings(epochs=1, flips=False, noise=1.0, vary_by="batch")
    area, corners = draw_area(patches, index, settings=noisy, generator=torch.Generator())
    one, other = gather_windows(area, corners, size=9)
    assert torch.equal(one, other)
    assert not torch.equal(one.permute(2, 0, 1), patches[0])


def test_shifts_stay_each_patchs_own():
    patches = make_dataset()
    index = torch.zeros(50, dtype=torch.int64)
    shifted = TrainSettings(epochs=1, vary_by="batch", shift=1)
    _, corners = draw_area(patches, index, settings=shifted, generator=torch.Generator().manual_seed(0))
    assert len(set(corners)) > 1


# ------------------------------------------------------------------------------ the cheaper way


def run_step(monkeypatch, *, cost: float, precision: str = "float32", **changes: object):
    monkeypatch.setattr(step_module, "SHARED_COST", cost)
    patches = make_dataset()
    patches.padded = patches.padded.float()
    model = make_network("gates around the 2-D convolution").float()
    options = TrainSettings.model_validate(
        {"epochs": 1, "vary_by": "batch", "noise": 0.1, "precision": precision, **changes}
    )
    step = Stepper(model, train=patches, settings=options)
    torch.manual_seed(0)
    loss = step(torch.arange(len(patches)), generator=torch.Generator().manual_seed(0))
    return step, {"output": loss, **list_results(model)}


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.2)])
def test_both_ways_draw_the_same_and_agree(monkeypatch, precision, tolerance):
    shared, apart = (run_step(monkeypatch, cost=cost, precision=precision) for cost in (1e-9, 1e9))
    assert shared[0].estimate(1, (400, 400)).shared_macs > shared[0].estimate(1, (400, 400)).patchwise_macs
    assert measure_distance(shared[1], apart[1]) < tolerance


def test_the_counted_macs_are_those_of_torchs_counter():
    patches = make_dataset()
    model = make_network("no norm")  # whose sums the counter would take for products
    step = Stepper(model, train=patches, settings=TrainSettings(epochs=1, vary_by="batch"))
    area, corners = draw_area(
        patches, torch.arange(24), settings=TrainSettings(epochs=1, flips=False), generator=torch.Generator()
    )
    cost = step.estimate(24, area.shape[:2])
    for macs, forward in (
        (cost.shared_macs, lambda: share_forward(model, area, corners)),
        (cost.patchwise_macs, lambda: model(patches.gather(torch.arange(24)))),
    ):
        with FlopCounterMode(display=False) as counter:
            forward()
        # It counts products only: squeeze, scaling and nonlinearities of 64 maps of 3 × 3 values come on top.
        assert counter.get_total_flops() == 2 * (macs - 24 * (2 * 64 * 9 + 64 + 16))


def test_crowded_batches_share_and_scattered_ones_do_not():
    model = make_network("no attention")
    step = Stepper(model, train=make_dataset(), settings=TrainSettings(epochs=1, vary_by="batch"))
    assert step.estimate(100, (21, 25)).is_shared
    assert not step.estimate(2, (200, 200)).is_shared


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"flips": True}, "flips"),
        ({"flips": False, "noise": 1.0}, "noise"),
        ({"flips": False}, ""),
        ({"vary_by": "batch"}, ""),
    ],
    ids=str,
)
def test_what_keeps_patches_from_sharing_is_named(changes, words):
    options = TrainSettings.model_validate({"epochs": 1, **changes})
    obstacle = Stepper(make_network("no attention"), train=make_dataset(), settings=options).obstacle
    assert (words in obstacle) if words else not obstacle


def test_other_networks_take_patches_of_a_batch_varied_as_one():
    config = SeResNet(name="se_resnet", attention={})
    model = build_model(config, num_bands=NUM_BANDS, patch_size=9, num_classes=NUM_CLASSES).double()
    step = Stepper(model, train=make_dataset(), settings=TrainSettings(epochs=1, vary_by="batch"))
    assert "HybridSN" in step.obstacle
    loss = step(torch.arange(4), generator=torch.Generator())
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in model.parameters())
