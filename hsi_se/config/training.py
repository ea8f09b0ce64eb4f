"""The sections `train` and `prediction` of the config."""

import math
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from hsi_se.config.base import Settings, Share, mistake


class EarlyStopping(Settings):
    """Ends training when the validation set shows no more improvement."""

    patience: PositiveInt
    """epochs without improvement after which training ends, from 1 to train.epochs - 2"""
    monitor: Literal["loss", "accuracy"] = "loss"
    """measured on the validation pixels: loss (default) is the cross-entropy, accuracy the overall accuracy"""


class TrainSettings(Settings):
    """Training: AdamW, the learning-rate schedule, augmentation and precision."""

    epochs: PositiveInt
    """number of passes over the training patches, 1 or more"""
    start_from: str | None = None
    """folder of a run with the same bands, reduction and network, whose weights training starts from; where its
    classes differ, the head is new; default: random weights"""
    batch_size: int = Field(default=256, ge=2)
    """patches per step, 2 or more; default 256"""
    learning_rate: PositiveFloat = 1e-3
    """peak learning rate of AdamW, above 0; lower in layers with more than 5,184 inputs; default 1e-3"""
    weight_decay: NonNegativeFloat = 1e-2
    """decoupled weight decay of AdamW, 0 or more; default 1e-2"""
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    """course of the learning rate over all steps: one-cycle rises and then falls (default), cosine falls,
    constant stays"""
    label_smoothing: Share = 0.0
    """share of the target probability spread evenly over all classes, from 0 to below 1; default 0"""
    flips: bool = True
    """transform training patches by a random symmetry of the square (flips, rotations, transposes); default true"""
    shift: NonNegativeInt = 0
    """largest random shift of a training patch in pixels, at most half the patch; its label is kept; default 0"""
    noise: NonNegativeFloat = 0.0
    """standard deviation of Gaussian noise added to the components of training patches, in the components'
    units; default 0"""
    spectral_jitter: NonNegativeFloat = 0.0
    """standard deviation of the random gain (mean 1) on each component of a training patch; default 0"""
    band_dropout: Share = 0.0
    """probability that a component of a training patch is set to 0, from 0 to below 1; default 0"""
    vary_by: Literal["patch", "batch"] = "patch"
    """draw flips, jitter, noise and band dropout for each patch (default), or once per batch for the whole
    scene, so that overlapping patches share computation"""
    precision: Literal["float32", "tf32", "bfloat16", "auto"] = "auto"
    """number format of the factors in the training step's products: auto (default) is bfloat16 where the device
    computes with it, otherwise float32; tf32 is for GPUs; weights and evaluation stay float32"""
    weight_averaging: Share = 0.0
    """decay per step of the moving average of the weights, from 0 to below 1; the average is validated and
    kept; default 0: no averaging"""
    norm_statistics: Literal["train", "scene"] = "train"
    """source of the final batch norm statistics: training patches (default), or patches of the whole scene,
    without labels"""
    class_weights: Literal["none", "sqrt", "balanced"] = "none"
    """weight of a class with n training pixels in the loss: none is 1 (default), sqrt is 1/√n, balanced is 1/n"""
    early_stopping: EarlyStopping | None = None
    """end training when the validation set shows no improvement for some epochs, such as {patience: 20}; default: all
    epochs"""
    max_minutes: PositiveFloat | None = None
    """limit of the training time in minutes, without interruptions, above 0: no epoch begins that would probably end
    later, after the first; default: no limit"""
    checkpoint_every_s: NonNegativeFloat = 60.0
    """seconds between checkpoints within an epoch, 0 or more; longer if saving would take over 1 % of the
    time; 0 saves after every step; default 60"""

    def list_variations(self) -> list[str]:
        """Returns the names of the active settings that vary a patch's values or orientation."""
        return [key for key in ("flips", "spectral_jitter", "noise", "band_dropout") if getattr(self, key)]

    def check_together(self) -> None:
        if self.vary_by == "batch" and not self.list_variations():
            raise mistake("has no effect without flips, spectral_jitter, noise or band_dropout", key="vary_by")
        if self.early_stopping is not None and self.early_stopping.patience > self.epochs - 2:
            most = f"use at most {self.epochs - 2}, or " if self.epochs > 2 else ""
            problem = f"cannot end a training of epochs: {self.epochs} early"
            raise mistake(f"{problem}; {most}leave early_stopping out", key="early_stopping.patience")


class Smoothing(Settings):
    """Joint bilateral filter of the class probabilities, guided by the components (Kang et al. 2014)."""

    spatial: PositiveFloat = Field(default=3.0, le=20)
    """spatial standard deviation in pixels, above 0 and at most 20; the window reaches two of them; default 3"""
    range: PositiveFloat = 0.3
    """spectral standard deviation, above 0, in units of each component's standard deviation over the scene;
    default 0.3"""
    components: PositiveInt = 6
    """number of leading components that guide the filter, at most; default 6"""
    passes: PositiveInt = Field(default=1, le=10)
    """number of filter passes, 1 to 10, each on the result of the previous one; default 1"""

    @property
    def radius(self) -> int:
        """Distance in pixels from the window's centre to its edge."""
        return math.ceil(2 * self.spatial)


Precision = Literal["float32", "tf32"]


class PredictionSettings(Settings):
    """Post-processing of a trained classifier's logits, in `eval` and in `map`."""

    symmetries: bool = False
    """average the logits over the eight flips and transposes of the scene, at eight times the cost; default false"""
    smoothing: Smoothing | None = None
    """filter for the class probabilities; default: no filter"""
    calibration: Literal["auto", "validation", "cross-fit", "none"] = "auto"
    """pixels that fit the temperature of the probabilities at the end of training: validation, or cross-fit
    (trains three more times, each on about two thirds of the training set, and predicts the rest); auto
    (default) uses 100 or more validation pixels if they are as far from training pixels as test pixels are,
    otherwise cross-fit; none leaves the probabilities uncalibrated, as ablations, folds and gap do by default"""

    precision: Precision = "float32"
    """number format of the factors in products: float32 (default), or tf32 where a GPU has it, with 10 of 23 bits"""

    @property
    def reach(self) -> int:
        """Distance in pixels beyond a pixel's own patch that can influence its class."""
        return 0 if self.smoothing is None else self.smoothing.passes * self.smoothing.radius

    @property
    def num_passes(self) -> int:
        """Number of times each pixel passes through the classifier."""
        return 8 if self.symmetries else 1
