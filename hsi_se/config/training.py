"""The `train` section of the config."""

from typing import Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from hsi_se.config.base import Settings, mistake


class TrainSettings(Settings):
    epochs: PositiveInt
    batch_size: int = Field(default=256, ge=2)
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-2
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    flips: bool = Field(default=True, description="a random flip or transpose of every training patch")
    shift: NonNegativeInt = Field(
        default=0, description="pixels by which a training patch may be moved off its pixel; its label stays"
    )
    noise: NonNegativeFloat = Field(
        default=0.0, description="standard deviation of Gaussian noise on the components of training patches"
    )
    spectral_jitter: NonNegativeFloat = Field(
        default=0.0,
        description="standard deviation of a training patch's gain on each of its components",
    )
    band_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of each training patch's components that are set to 0"
    )
    vary_by: Literal["patch", "batch"] = Field(
        default="patch",
        description="whether flips, jitter, noise and band dropout are drawn for each patch, or once a "
        "batch for the whole scene, so that patches that overlap can share their work",
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32",
        description="of products in the training step; weights and evaluation stay float32; auto is bfloat16 "
        "where the device computes with it",
    )
    compile: bool = Field(
        default=False,
        description="torch.compile the step, a minute or two before the first; a GPU then replays it as CUDA "
        "graphs, a processor gains nothing",
    )
    weight_averaging: float = Field(
        default=0.0, ge=0, lt=1, description="decay a step of the moving average that is kept; 0 keeps none"
    )
    norm_statistics: Literal["train", "scene"] = Field(
        default="train",
        description="what batch norm goes by in the end: the training patches, or patches of the whole scene "
        "without their labels",
    )
    class_weights: Literal["none", "sqrt", "balanced"] = Field(
        default="none", description="weight of a class in the loss: 1, 1/√n or 1/n of its training pixels"
    )
    checkpoint_every_s: NonNegativeFloat = Field(
        default=60.0,
        description="seconds between checkpoints within an epoch, more where saving would cost over 1 % of "
        "the time; 0 saves after every step",
    )

    def list_variations(self) -> list[str]:
        """Returns the settings in force that change the values of a patch, or turn it."""
        return [key for key in ("flips", "spectral_jitter", "noise", "band_dropout") if getattr(self, key)]

    @model_validator(mode="after")
    def _there_is_something_to_vary(self) -> Self:
        if self.vary_by == "batch" and not self.list_variations():
            raise mistake(
                "has no effect without flips, spectral_jitter, noise or band_dropout", key="vary_by"
            )
        return self
