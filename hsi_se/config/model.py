"""The config's `model` section: every network, its points, and the attention blocks that go there."""

from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from hsi_se.config.base import Settings, mistake, unknown
from hsi_se.errors import ConfigError

Dropout = Annotated[float, Field(ge=0, lt=1)]


def _check_kernel(value: int | None) -> int | None:
    if value is not None and value % 2 == 0:
        raise mistake(f"a kernel needs a centre; write {value - 1} or {value + 1}")
    return value


KernelSize = Annotated[PositiveInt, AfterValidator(_check_kernel)]


# ---------------------------------------------------------------------------------- attention blocks


class Block(Settings):
    """An attention block's settings; each kind says which points it does not fit."""

    needs_2d: ClassVar[bool] = False  # whether rows and cols must be the only spatial axes
    kind: str

    def explain_misfit(self, *, is_3d: bool) -> tuple[str, str] | None:
        """Returns the setting at fault and why the block does not fit, or None where it does."""
        if self.needs_2d and is_3d:
            return "kind", "works on maps of rows and cols, and this point has a spectral depth as well"
        return None


class ChannelGateBlock(Block):
    axis: Literal["feature", "band"] = Field(
        default="feature", description="what is gated; band is spectral depth, at 3-D points alone"
    )

    def explain_misfit(self, *, is_3d: bool) -> tuple[str, str] | None:
        if self.axis == "band" and not is_3d:
            return "axis", "'band' needs a 3-D point, and this one has no spectral axis; write axis: feature"
        return super().explain_misfit(is_3d=is_3d)


class SqueezeExcite(ChannelGateBlock):
    """Squeeze-and-excitation (Hu et al. 2018)."""

    kind: Literal["se"]
    reduction: PositiveInt = 16
    bias: bool = True
    form: Literal["linear", "conv"] = "linear"
    squeeze: Literal["mean", "max"] = "mean"


class EfficientChannel(ChannelGateBlock):
    """Efficient channel attention (Wang et al. 2020): a 1-D convolution over neighbouring channels."""

    kind: Literal["eca"]
    kernel_size: KernelSize | None = Field(default=None, description="from the channel count unless given")


class Cbam(Block):
    """The convolutional block attention module (Woo et al. 2018): channels, then places."""

    kind: Literal["cbam"]
    reduction: PositiveInt = 16
    bias: bool = False
    spatial_kernel: Annotated[NonNegativeInt, AfterValidator(lambda k: k and _check_kernel(k))] | None = (
        Field(default=None, description="7 at 2-D points and 0, which leaves that half out, at 3-D ones")
    )

    def explain_misfit(self, *, is_3d: bool) -> tuple[str, str] | None:
        if self.spatial_kernel and is_3d:
            return (
                "spatial_kernel",
                "this point has no 2-D map; leave it out, and the channel half acts alone",
            )
        return None


class NonLocal(Block):
    """A non-local block (Wang et al. 2018), embedded Gaussian, that starts as the identity."""

    kind: Literal["nonlocal"]
    reduction: PositiveInt = Field(default=2, description="channels over the embedding's")
    sub_sample: bool = Field(default=False, description="2 × 2 max-pooled keys and values")


class StripPooling(Block):
    """Strip pooling (Hou et al. 2020): a gate from the means of rows and of cols."""

    needs_2d: ClassVar[bool] = True
    kind: Literal["strip_pooling"]
    kernel_size: KernelSize = 3


class Coordinate(Block):
    """Coordinate attention (Hou et al. 2021): one gate along the rows, one along the cols."""

    needs_2d: ClassVar[bool] = True
    kind: Literal["coordinate"]
    reduction: PositiveInt = 16


class GatherExcite(Block):
    """Gather-excite without parameters (Hu et al. 2018): a gate from the mean around each place."""

    needs_2d: ClassVar[bool] = True
    kind: Literal["gather_excite"]
    extent: Literal[0, 2, 4, 8] = Field(default=0, description="stride of the gathered means; 0 is the map")


class SimAm(Block):
    """SimAM (Yang et al. 2021): a gate on every value from how far it stands out; no parameters."""

    kind: Literal["simam"]
    regularization: PositiveFloat = Field(default=1e-4, description="λ of the paper's eq. 5")


AttentionSettings = Annotated[
    SqueezeExcite | EfficientChannel | Cbam | NonLocal | StripPooling | Coordinate | GatherExcite | SimAm,
    Discriminator("kind"),
]
Attention = dict[str, AttentionSettings]


def list_blocks() -> list[AttentionSettings]:
    """Returns every kind of block with its default settings."""
    kinds = get_args(get_args(AttentionSettings)[0])
    return [kind(kind=get_args(kind.model_fields["kind"].annotation)[0]) for kind in kinds]


# ------------------------------------------------------------------------------------------- networks


class Model(Settings):
    """A classifier of patches: where attention may go in it, and the input that it needs."""

    points: ClassVar[tuple[str, ...]] = ()
    points_3d: ClassVar[tuple[str, ...]] = ()  # those whose features keep a spectral depth
    name: str

    def check_input(self, *, num_bands: int, patch_size: int, origin: str = "input bands") -> None:
        """Proves that every convolution has something left to work on.

        Raises:
            ConfigError: the patch or the spectral depth is smaller than the kernels together.
        """


class Network(Model):
    attention: Attention = Field(default={}, description="the block at each point")

    @model_validator(mode="after")
    def _attention_fits_its_point(self) -> Self:
        for point, block in self.attention.items():
            if point not in self.points:
                raise mistake(unknown(point, "point", self.points), key=f"attention.{point}")
            misfit = block.explain_misfit(is_3d=point in self.points_3d)
            if misfit is not None:
                raise mistake(misfit[1], key=f"attention.{point}.{misfit[0]}")
        return self


class HybridSN(Network):
    """HybridSN (Roy et al. 2020) in either order, with attention after any of its five stages."""

    points: ClassVar = ("conv3d_1", "conv3d_2", "conv3d_3", "fold", "conv2d")
    points_3d: ClassVar = ("conv3d_1", "conv3d_2", "conv3d_3")
    name: Literal["hybridsn"]
    order: Literal["3d-2d", "2d-3d"] = "3d-2d"
    width: PositiveFloat = Field(
        default=1.0, description="factor on the features of every convolution and hidden dense layer"
    )
    norm: Literal["batch", "none"] = "batch"
    pool: Literal["none", "mean"] = Field(
        default="none", description="what the dense layers see: every place of the last map, or their mean"
    )
    dropout: Dropout = 0.4
    dense_relu: bool = Field(default=True, description="ReLU between the dense layers, as in the paper")

    def check_input(self, *, num_bands: int, patch_size: int, origin: str = "input bands") -> None:
        smallest_patch = 9  # four valid 3 × 3 windows
        if patch_size < smallest_patch:
            raise ConfigError(
                f"patch.size = {patch_size}: four 3 × 3 convolutions without padding need at least "
                f"{smallest_patch}; write patch.size: {smallest_patch} or more"
            )
        if self.order == "2d-3d" and round(64 * self.width) < 13:
            raise ConfigError(
                f"model.width = {self.width:g}: in 2d-3d the features of the 2-D convolution are the depth "
                "of the spectral kernels 7, 5 and 3 deep; write model.width: 0.2 or more"
            )
        smallest_depth = 13 if self.order == "3d-2d" else 1  # kernels 7, 5 and 3 deep
        if num_bands < smallest_depth:
            raise ConfigError(
                f"{origin} = {num_bands}: spectral kernels 7, 5 and 3 deep need at least "
                f"{smallest_depth}; keep more bands, or write model.order: 2d-3d"
            )


_LAYERS = ("layer1", "layer2", "layer3", "layer4")


def _se_at(*points: str) -> Attention:
    return {point: SqueezeExcite(kind="se") for point in points}


class Stemmed(Network):
    """A 2-D network that reads components as channels; its blocks' gates are listed by stage."""

    stem: Literal["small", "imagenet"] = Field(
        default="small",
        description="3 × 3 that keeps a small patch's size, or 7 × 7 and a pool that quarter it",
    )
    dropout: Dropout = 0.0


class SeResNet(Stemmed):
    """A residual network (He et al. 2016) with a gate in every block of the stages listed."""

    points: ClassVar = _LAYERS
    name: Literal["se_resnet"]
    depth: Literal[18, 34, 50, 101, 152] = 18
    gate: Literal["standard", "pre", "post", "identity"] = Field(
        default="standard",
        description="before the addition, before the residual branch, after the addition, or on the "
        "identity (Hu et al. 2018, fig. 5)",
    )
    attention: Attention = _se_at(*_LAYERS)


class Res2Net(Stemmed):
    """Res2Net (Gao et al. 2021): residual blocks whose 3 × 3 convolutions form a hierarchy."""

    points: ClassVar = _LAYERS
    name: Literal["res2net"]
    depth: Literal[50, 101, 152] = 50
    scale: int = Field(default=4, ge=2, description="groups of features in each block")
    base_width: PositiveInt = Field(default=26, description="features of a group in the first stage")
    attention: Attention = _se_at(*_LAYERS)


class SeInception(Stemmed):
    """Inception modules (Szegedy et al. 2015) with batch norm and a gate after the whole module."""

    points: ClassVar = tuple(
        f"inception_{name}" for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
    )
    name: Literal["se_inception"]
    attention: Attention = _se_at(*points)


class Ssrn(Network):
    """The spectral-spatial residual network (Zhong et al. 2018)."""

    points: ClassVar = ("spectral_stem", "spectral_1", "spectral_2", "spatial_stem", "spatial_1", "spatial_2")
    points_3d: ClassVar = ("spectral_stem", "spectral_1", "spectral_2")
    name: Literal["ssrn"]
    features: PositiveInt = 24
    dropout: Dropout = 0.5

    def check_input(self, *, num_bands: int, patch_size: int, origin: str = "input bands") -> None:
        if num_bands < 7:
            raise ConfigError(
                f"{origin} = {num_bands}: the first spectral kernel is 7 deep; keep 7 components or more"
            )
        if patch_size < 3:
            raise ConfigError(f"patch.size = {patch_size}: a 3 × 3 convolution; write patch.size: 3 or more")


class Cnn3d(Network):
    """A plain 3-D CNN: HybridSN's three 3-D convolutions, a global mean and one dense layer."""

    points: ClassVar = ("conv3d_1", "conv3d_2", "conv3d_3")
    points_3d: ClassVar = points
    name: Literal["cnn3d"]
    dropout: Dropout = 0.4

    def check_input(self, *, num_bands: int, patch_size: int, origin: str = "input bands") -> None:
        if num_bands < 13:
            raise ConfigError(
                f"{origin} = {num_bands}: spectral kernels 7, 5 and 3 deep need at least 13; keep more bands"
            )
        if patch_size < 7:
            raise ConfigError(
                f"patch.size = {patch_size}: three 3 × 3 convolutions without padding need at least 7; "
                "write patch.size: 7 or more"
            )


class Svm(Model):
    """An RBF support vector machine on the centre pixel; tuned on the training side unless given."""

    name: Literal["svm"]
    penalty: PositiveFloat | None = Field(default=None, description="C")
    gamma: PositiveFloat | None = None


class RandomForest(Model):
    """A random forest (Breiman 2001) on the centre pixel."""

    name: Literal["random_forest"]
    trees: PositiveInt = 300
    min_leaf: PositiveInt = Field(default=1, description="fewest training pixels in a leaf")


NetworkSettings = HybridSN | SeResNet | Res2Net | SeInception | Ssrn | Cnn3d
ModelSettings = Annotated[NetworkSettings | Svm | RandomForest, Discriminator("name")]


def list_models() -> dict[str, type[Model]]:
    """Returns the settings of every classifier, by its name."""
    kinds = get_args(get_args(ModelSettings)[0])
    return {get_args(kind.model_fields["name"].annotation)[0]: kind for kind in kinds}
