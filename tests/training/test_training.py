"""The modes of dropout and batch norm, and what the loop promises."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from hsi_se import build_model
from hsi_se.config.model import HybridSN
from hsi_se.config.training import TrainSettings
from hsi_se.errors import DivergedError, TrainingError
from hsi_se.models.inference import evaluation_mode, predict_patches
from hsi_se.progress import Silent
from hsi_se.sampling.patches import PatchDataset, pad_cube
from hsi_se.training.checkpoint import Keeper
from hsi_se.training.distributed import World
from hsi_se.training.fit import fit

NUM_CLASSES = 3


def make_patches(num_pixels: int = 40, *, seed: int = 0) -> PatchDataset:
    """Patches whose class is plain to see: the level of all components around the pixel."""
    rng = np.random.default_rng(seed)
    level = np.repeat(np.arange(NUM_CLASSES), 7)[:, None, None] * np.ones((1, 20, 15))
    cube = (level + rng.normal(0, 0.5, level.shape)).astype(np.float32)
    pixels = rng.permutation(np.argwhere(np.ones(cube.shape[:2], bool)))[:num_pixels]
    targets = level[pixels[:, 0], pixels[:, 1], 0].astype(np.int64)
    return PatchDataset(pad_cube(cube, patch_size=9, padding="reflect"), pixels, patch_size=9, targets=targets)


def make_model(**changes: object) -> nn.Module:
    settings = HybridSN.model_validate({"name": "hybridsn", "attention": {"fold": {"kind": "se"}}, **changes})
    return build_model(settings, num_bands=15, patch_size=9, num_classes=NUM_CLASSES)


def run_fit(
    model: nn.Module,
    *,
    num_pixels: int = 40,
    num_val: int = 20,
    seed: int = 0,
    keeper: Keeper | None = None,
    world: World | None = None,
    **changes: object,
):
    settings = TrainSettings.model_validate({"epochs": 3, "batch_size": 16, "precision": "float32", **changes})
    return fit(
        model,
        train=make_patches(num_pixels),
        val=make_patches(num_val, seed=1),
        num_classes=NUM_CLASSES,
        settings=settings,
        seed=seed,
        observer=Silent(),
        keeper=keeper,
        world=world,
    )


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


# ------------------------------------------------------------------- modes: a check, and that it can fail


def check_evaluating_twice_gives_identical_logits() -> None:
    model, patches = make_model(), make_patches()
    assert torch.equal(predict_patches(model, patches), predict_patches(model, patches))


def check_evaluating_never_moves_the_running_statistics() -> None:
    model = make_model()
    before = state_of(model)
    predict_patches(model, make_patches())
    assert are_equal(state_of(model), before)


def check_a_pixels_logits_do_not_depend_on_its_batch() -> None:
    model, patches = make_model(), make_patches()
    together, apart = (predict_patches(model, patches, batch_size=size) for size in (40, 7))
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def check_training_moves_the_running_statistics() -> None:
    model = make_model().eval()
    before = state_of(model)["stages.conv2d.norm.running_mean"]
    run_fit(model, epochs=1)
    assert not torch.equal(state_of(model)["stages.conv2d.norm.running_mean"], before)


def check_dropout_and_batch_norm_act_in_training_steps_and_rest_in_validation() -> None:
    model = make_model().eval()
    seen = []
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.BatchNorm2d | nn.BatchNorm3d):
            module.register_forward_pre_hook(lambda module, _: seen.append((torch.is_grad_enabled(), module.training)))
    run_fit(model, epochs=2)
    assert set(seen) == {(True, True), (False, False)}


NEEDS_EVAL = (
    check_evaluating_twice_gives_identical_logits,
    check_evaluating_never_moves_the_running_statistics,
    check_a_pixels_logits_do_not_depend_on_its_batch,
    check_dropout_and_batch_norm_act_in_training_steps_and_rest_in_validation,
)
NEEDS_TRAIN = (
    check_training_moves_the_running_statistics,
    check_dropout_and_batch_norm_act_in_training_steps_and_rest_in_validation,
)


@pytest.mark.parametrize("check", {*NEEDS_EVAL, *NEEDS_TRAIN}, ids=lambda check: check.__name__)
def test_modes(check):
    check()


@pytest.mark.parametrize("check", NEEDS_EVAL, ids=lambda check: check.__name__)
def test_without_the_switch_to_evaluation_the_check_fails(check, monkeypatch):
    monkeypatch.setattr(nn.Module, "eval", lambda self: self)
    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("check", NEEDS_TRAIN, ids=lambda check: check.__name__)
def test_without_the_switch_to_training_the_check_fails(check, monkeypatch):
    def train(self: nn.Module, mode: bool = True) -> nn.Module:
        """`eval()` is `train(False)`: only the way back is cut."""
        if not mode:
            for module in self.modules():
                module.training = False
        return self

    monkeypatch.setattr(nn.Module, "train", train)
    with pytest.raises(AssertionError):
        check()


def test_evaluation_mode_restores_every_modules_own_mode_even_after_an_error():
    model = make_model().train()
    model.stages["conv2d"].eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(ZeroDivisionError), evaluation_mode(model):  # noqa: PT012
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        _ = 1 / 0
    assert [module.training for module in model.modules()] == before


def test_without_dropout_and_batch_norm_both_modes_agree():
    model, patch = make_model(norm="none", dropout=0.0), make_patches().gather(torch.arange(4))
    torch.testing.assert_close(model.train()(patch), model.eval()(patch))


# ------------------------------------------------------------------------------------- the loop


def test_the_loop_learns_what_is_plain_to_see():
    model = make_model()
    result = run_fit(model, epochs=12, num_pixels=80)
    assert result.history[-1].validation_accuracy >= 0.9
    assert result.history[-1].loss < result.history[0].loss


def test_the_average_kept_is_the_moving_average_of_the_steps_weights():
    steps: list[torch.Tensor] = []
    model = make_model()

    class Watch(Silent):
        def advance(self, _count: int) -> None:
            steps.append(model.head[6].weight.detach().clone())

    fit(
        model, train=make_patches(), val=make_patches(0), num_classes=NUM_CLASSES, seed=0, observer=Watch(),
        settings=TrainSettings(epochs=2, batch_size=16, weight_averaging=0.8),
    )  # fmt: skip
    expected = steps[0]
    for weight in steps[1:]:
        expected = 0.8 * expected + 0.2 * weight
    assert len(steps) == 6
    torch.testing.assert_close(model.head[6].weight.detach(), expected)


def test_bfloat16_products_leave_the_weights_and_the_evaluation_in_float32():
    model, exact = make_model(), make_model()
    losses = [
        [epoch.loss for epoch in run_fit(each, epochs=2, precision=precision).history]
        for each, precision in ((model, "bfloat16"), (exact, "float32"))
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert {value.dtype for value in state_of(model).values()} == {torch.float32, torch.int64}
    assert predict_patches(model, make_patches()).dtype == torch.float32


def test_the_same_seed_trains_the_same_weights_whatever_the_global_generator():
    states = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        model = make_model()
        run_fit(model, seed=5)
        states.append(state_of(model))
    assert are_equal(*states)


def test_another_seed_trains_other_weights():
    models = [make_model(), make_model()]
    for seed, model in enumerate(models):
        run_fit(model, seed=seed)
    assert not are_equal(state_of(models[0]), state_of(models[1]))


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    run_fit(make_model())
    assert torch.equal(torch.rand(1), expected)


def test_the_epoch_taken_is_the_latest_within_a_standard_error_of_the_highest_accuracy():
    model = make_model()
    result = run_fit(model, epochs=8)
    accuracies = [record.validation_accuracy for record in result.history]
    share = (20 * max(accuracies) + 2) / 24  # 20 validation pixels
    least = max(accuracies) - math.sqrt(share * (1 - share) / 24)
    assert result.best_epoch == max(epoch for epoch, value in enumerate(accuracies, 1) if value >= least)
    assert min(accuracies) < least, "else the rule had nothing to leave out"
    val = make_patches(20, seed=1)
    accuracy = (predict_patches(model, val).argmax(1) == val.targets).float().mean()
    assert float(accuracy) == result.history[result.best_epoch - 1].validation_accuracy


def test_without_validation_pixels_the_last_epoch_is_taken():
    result = run_fit(make_model(), num_val=0, epochs=3)
    assert result.best_epoch == 3
    assert result.history[0].validation_accuracy is None


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": "cosine"}, {"schedule": "constant"}, {"label_smoothing": 0.3}, {"flips": False},
        {"class_weights": "balanced"}, {"class_weights": "sqrt"},
        {"vary_by": "batch"}, {"precision": "bfloat16"}, {"weight_averaging": 0.9}, {"noise": 0.5},
        {"shift": 1}, {"spectral_jitter": 0.2}, {"band_dropout": 0.3},
        {"weight_decay": 0.5}, {"learning_rate": 3e-3}, {"batch_size": 10},
        {"epochs": 4},
    ],
    ids=str,
)  # fmt: skip
def test_every_training_setting_changes_the_weights(change):
    base, changed = make_model(), make_model()
    run_fit(base, num_pixels=41, num_val=0)
    run_fit(changed, num_pixels=41, num_val=0, **change)
    assert not are_equal(state_of(base), state_of(changed))


def test_each_epoch_sees_every_training_pixel_once_in_a_new_order():
    seen: list[list[int]] = [[]]

    class Spy(PatchDataset):
        def find_places(self, index, *, shifts=None):
            if len(index) == 11:  # a batch, not the 16 patches whose logits are checked
                seen[-1].extend(index.tolist())
            if len(seen[-1]) == len(self):
                seen.append([])
            return super().find_places(index, shifts=shifts)

    patches = make_patches(33)
    patches.__class__ = Spy
    settings = TrainSettings(epochs=3, batch_size=16)
    fit(
        make_model(), train=patches, val=make_patches(0), num_classes=NUM_CLASSES, settings=settings, seed=0,
        observer=Silent(),
    )  # fmt: skip
    orders = [order for order in seen if order]
    assert [sorted(order) for order in orders] == [list(range(33))] * 3
    assert all(one != other for one, other in itertools.pairwise(orders))


def test_no_batch_is_a_single_left_over_patch():
    # At patch 9 the last map is one pixel: batch norm over one patch would fail.
    run_fit(make_model(), num_pixels=33, batch_size=16, epochs=1)


def test_a_loss_that_is_no_number_stops_training_and_names_the_learning_rate():
    with pytest.raises(
        TrainingError, match=r"train\.learning_rate = 1e\+30: training diverged: loss or weights .* lower"
    ):
        run_fit(make_model(norm="none"), learning_rate=1e30)


def test_a_divergence_in_the_very_last_step_is_noticed():
    with pytest.raises(TrainingError, match="became NaN or infinite in epoch 1"):
        run_fit(make_model(norm="none"), learning_rate=1e38, num_val=0, epochs=1, batch_size=40)


def test_a_gpu_is_not_allowed_to_shorten_float32():
    """What cuDNN may do is asked where the network runs, in training and in evaluation."""
    seen, model = [], make_model()
    model.register_forward_hook(lambda module, *_: seen.append((module.training, torch.backends.cudnn.allow_tf32)))
    before = torch.backends.cudnn.allow_tf32
    run_fit(model, epochs=1)
    assert set(seen) == {(True, False), (False, False)}
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize("num_val", [0, 20])
def test_weights_that_are_numbers_but_give_none_have_diverged(num_val):
    """As with norm: none, whose weights can grow until their products overflow."""

    class Growing(Silent):
        def advance(self, _count: int) -> None:
            with torch.no_grad():
                for weight in model.parameters():
                    weight.fill_(1e30)

    model = make_model(norm="none")
    with pytest.raises(DivergedError, match="training diverged: loss or weights became NaN or infinite in epoch 1"):
        fit(
            model,
            train=make_patches(16),
            val=make_patches(num_val, seed=1),
            num_classes=NUM_CLASSES,
            settings=TrainSettings(epochs=1, batch_size=16),
            seed=0,
            observer=Growing(),
        )
