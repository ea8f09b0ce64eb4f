"""The config's `model` section: the networks, their attention points, and the attention blocks."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from hsi_se.config.base import Settings, Share, mistake, unknown
from hsi_se.config.registry import Registry
from hsi_se.errors import ConfigError


def _check_kernel(value: int) -> int:
    if value % 2 == 0:
        raise mistake(f"a kernel size must be odd; write {value - 1} or {value + 1}")
    return value


KernelSize = Annotated[PositiveInt, AfterValidator(_check_kernel)]


class _Registered(Settings):
    """The settings of a block or network, which the registry knows by name."""

    registry: ClassVar[Registry]

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        if hasattr(cls, "registry"):
            cls.registry.know(cls)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.registry.reduce(self) or super().__reduce_ex__(protocol)


class Block(_Registered):
    """The settings of an attention block, and a check of whether it fits a point."""

    needs_2d: ClassVar[bool] = False  # whether the block cannot handle a spectral axis
    kind: str

    def explain_misfit(self, *, is_3d: bool) -> tuple[str, str] | None:
        """Returns the faulty setting and the reason the block does not fit, or None if it fits."""
        if self.needs_2d and is_3d:
            return "kind", "needs 2-D features, and this point has a spectral axis; use a 2-D point"
        return None


Block.registry = Registry(Block, group="attention", key="kind", given=("shape", "channels", "is_3d"))
AttentionSettings = Annotated[Block, Block.registry]
Attention = dict[str, AttentionSettings]


class Starting(Block):
    """The settings of a block that may begin as the identity."""

    start: Literal["drawn", "identity"] = "drawn"
    """effect before training: drawn is that of its random weights (default), identity is none: a trained factor,
    which starts at 0, scales the block's effect"""


class ChannelGateBlock(Starting):
    """The settings of a block that gates whole channels."""

    axis: Literal["feature", "band"] = "feature"
    """axis whose channels are gated: feature (default), or band for the spectral depth, at 3-D points only"""

    def explain_misfit(self, *, is_3d: bool) -> tuple[str, str] | None:
        if self.axis == "band" and not is_3d:
            return "axis", "'band' needs a 3-D point, and this one has no spectral axis; write axis: feature"
        return super().explain_misfit(is_3d=is_3d)


class SqueezeExcite(ChannelGateBlock):
    """Squeeze-and-excitation (Hu et al. 2018): one gate per channel from the channel means."""

    kind: Literal["se"]
    reduction: PositiveInt = 16
    """ratio of channels to hidden width, 1 or more; default 16; the hidden width is at least 1"""
    bias: bool = True
    """whether the two layers have a bias; default true"""
    form: Literal["linear", "conv"] = "linear"
    """two linear layers (default), or the same as 1 × 1 convolutions"""
    squeeze: Literal["mean", "max"] = "mean"
    """statistic that summarizes each channel; default mean"""


class EfficientChannel(ChannelGateBlock):
    """Efficient channel attention (Wang et al. 2020): a 1-D convolution across the channel means."""

    kind: Literal["eca"]
    kernel_size: KernelSize | None = None
    """number of channels in the 1-D convolution's kernel, odd; default: computed from the number of channels,
    as in the paper"""


class Cbam(Starting):
    """Convolutional block attention module (Woo et al. 2018): channel gates, then a spatial gate."""

    kind: Literal["cbam"]
    reduction: PositiveInt = 16
    """ratio of channels to hidden width, 1 or more; default 16; the hidden width is at least 1"""
    bias: bool = False
    """whether the two dense layers have a bias; default false"""
    spatial_kernel: Annotated[NonNegativeInt, AfterValidator(lambda k: k and _check_kernel(k))] | None = None
    """side in pixels of the spatial gate's kernel, odd, 0 for channel gates only; default: 7 at 2-D points, else 0"""

    def explain_misfit(self, *, is_3d: bool) -> tuple[str, str] | None:
        if self.spatial_kernel and is_3d:
            return ("spatial_kernel", "the spatial gate needs a 2-D point; leave it out to use channel gates only")
        return None


class NonLocal(Block):
    """Non-local block (Wang et al. 2018): embedded Gaussian self-attention, initialised as the identity."""

    kind: Literal["nonlocal"]
    reduction: PositiveInt = 2
    """ratio of channels to embedding width, 1 or more; default 2"""
    sub_sample: bool = False
    """max-pool keys and values by 2 × 2 pixels, to save computation; default false"""


class StripPooling(Starting):
    """Strip pooling (Hou et al. 2020): a gate per pixel from row means and column means."""

    needs_2d: ClassVar[bool] = True
    kind: Literal["strip_pooling"]
    kernel_size: KernelSize = 3
    """length of the 1-D convolutions in pixels, odd; default 3"""


class Coordinate(Starting):
    """Coordinate attention (Hou et al. 2021): one gate per row and one per column."""

    needs_2d: ClassVar[bool] = True
    kind: Literal["coordinate"]
    reduction: PositiveInt = 16
    """ratio of channels to embedding width, 1 or more; default 16; the width is at least 8"""


class ConcurrentSqueezeExcite(Starting):
    """Concurrent squeeze-and-excitation (Roy et al. 2018): one gate per channel plus one per position."""

    kind: Literal["scse"]
    reduction: PositiveInt = 2
    """ratio of channels to hidden width, 1 or more; default 2; the hidden width is at least 1"""


class ExpectationMaximization(Starting):
    """Expectation-maximization attention (Li et al. 2019): adds a low-rank reconstruction of the features."""

    kind: Literal["em"]
    bases: PositiveInt = 64
    """number of bases, the rank, 1 or more; default 64, and at most the number of channels"""
    steps: PositiveInt = 3
    """steps of expectation and maximization, 1 or more; default 3"""


class GatherExcite(Starting):
    """Gather-excite (Hu et al. 2018): a gate from each neighbourhood, by its mean or by learned convolutions."""

    needs_2d: ClassVar[bool] = True
    kind: Literal["gather_excite"]
    extent: Literal[0, 2, 4, 8] = 0
    """stride of the neighbourhoods in pixels; default 0: the whole map"""
    learned: bool = False
    """gather by depth-wise convolutions (GE-θ) instead of means (GE-θ⁻); default false; with extent 0 the
    convolution is as large as the map, which then cannot change its size"""


class SimAm(Starting):
    """SimAM (Yang et al. 2021): a gate per value from its distance to the channel mean; no parameters."""

    kind: Literal["simam"]
    regularization: PositiveFloat = 1e-4
    """λ of the paper's eq. 5, added to the variance, above 0; default 1e-4"""


def list_blocks() -> list[Block]:
    """Returns one block of every kind, with default settings."""
    return [entry.settings(kind=kind) for kind, entry in Block.registry.list_entries().items()]


class Model(_Registered):
    """The settings of a patch classifier: its attention points, and a check of its input."""

    points: ClassVar[tuple[str, ...]] = ()
    points_3d: ClassVar[tuple[str, ...]] = ()  # the points whose features still have a spectral axis
    least_patch: ClassVar[tuple[int, str]] = (1, "")  # in pixels, and what needs it
    least_depth: ClassVar[tuple[int, str]] = (1, "")  # in bands, and what a message says of fewer
    name: str

    def check_input(self, *, num_bands: int, patch_size: int, origin: str = "input bands") -> None:
        """Raises ConfigError if the patch or the spectral depth is too small for the kernels."""
        (smallest, needed), (fewest, problem) = self.least_patch, self.least_depth
        if patch_size < smallest:
            remedy = f"write patch.size: {smallest} or more"
            raise ConfigError(f"patch.size = {patch_size}: {needed} at least {smallest}; {remedy}")
        if num_bands < fewest:
            raise ConfigError(f"{origin} = {num_bands}: {problem}")


class Network(Model):
    """The settings of a network with attention points."""

    attention: Attention = Field(default={})
    """attention block at each point; default: none"""

    @model_validator(mode="after")
    def _blocks_fit_points(self) -> Self:
        for point, block in self.attention.items():
            if point not in self.points:
                raise mistake(unknown(point, "point", self.points), key=f"attention.{point}")
            misfit = block.explain_misfit(is_3d=point in self.points_3d)
            if misfit is not None:
                raise mistake(misfit[1], key=f"attention.{point}.{misfit[0]}")
        return self


Model.registry = Registry(Network, group="networks", key="name", given=("num_bands", "patch_size", "num_classes"))
ModelSettings = Annotated[Model, Model.registry]


class HybridSN(Network):
    """HybridSN (Roy et al. 2020): 3-D and 2-D convolutions in either order, five attention points."""

    points: ClassVar = ("conv3d_1", "conv3d_2", "conv3d_3", "fold", "conv2d")
    points_3d: ClassVar = ("conv3d_1", "conv3d_2", "conv3d_3")
    least_patch: ClassVar = (9, "four 3 × 3 convolutions without padding need")
    name: Literal["hybridsn"]
    order: Literal["3d-2d", "2d-3d"] = "3d-2d"
    """whether the 3-D convolutions come first, as in the paper (default), or the 2-D one"""
    width: PositiveFloat = 1.0
    """factor on the features of every convolution and hidden dense layer, above 0; default 1"""
    norm: Literal["batch", "none"] = "batch"
    """batch norm after every convolution (default), or none as in the paper"""
    pool: Literal["none", "mean"] = "none"
    """input of the dense layers: every pixel of the last map (default), or their mean"""
    dropout: Share = 0.4
    """dropout between the dense layers, from 0 to below 1; default 0.4"""
    dense_relu: bool = True
    """ReLU between the dense layers, as in the paper; default true"""

    def check_input(self, *, num_bands: int, patch_size: int, origin: str = "input bands") -> None:
        super().check_input(num_bands=num_bands, patch_size=patch_size, origin=origin)
        if self.order == "2d-3d" and round(64 * self.width) < 13:
            needed = "the spectral kernels (7, 5 and 3 deep) need at least 13 features of the 2-D convolution"
            remedy = "write model.width: 0.2 or more"
            raise ConfigError(f"model.width = {self.width:g}: with order 2d-3d {needed}; {remedy}")
        if self.order == "3d-2d" and num_bands < 13:
            problem = "spectral kernels 7, 5 and 3 deep need at least 13"
            raise ConfigError(f"{origin} = {num_bands}: {problem}; keep more bands, or write model.order: 2d-3d")


_LAYERS = ("layer1", "layer2", "layer3", "layer4")


def _se_at(*points: str) -> Attention:
    return {point: SqueezeExcite(kind="se") for point in points}


class Stemmed(Network):
    """The settings of a 2-D network that takes components as channels."""

    stem: Literal["small", "imagenet"] = "small"
    """first layer: small is a 3 × 3 convolution that keeps the patch's size (default), imagenet is the
    original, strided one for large inputs"""
    dropout: Share = 0.0
    """dropout before the last layer, from 0 to below 1; default 0"""


class SeResNet(Stemmed):
    """Residual network (He et al. 2016) with attention in every block of the listed stages."""

    points: ClassVar = _LAYERS
    name: Literal["se_resnet"]
    depth: Literal[18, 34, 50, 101, 152] = 18
    """number of layers; default 18; from 50 on, blocks are bottlenecks"""
    gate: Literal["standard", "pre", "post", "identity"] = "standard"
    """position of the attention (Hu et al. 2018, fig. 5): standard is after the residual branch (default),
    pre before it, post after the addition, identity on the shortcut"""
    stride_on: Literal["1x1", "3x3"] | None = None
    """strided convolution of a bottleneck: 1x1 is the first, as in the paper (default), 3x3 the second, as in
    torchvision; from depth 50 on"""
    attention: Attention = _se_at(*_LAYERS)
    """attention block of each stage; default: se at all four"""

    def check_together(self) -> None:
        super().check_together()
        if self.stride_on and self.depth < 50:
            raise mistake("only bottlenecks have both; leave it out, or write model.depth: 50", key="stride_on")


class Res2Net(Stemmed):
    """Res2Net (Gao et al. 2021): residual blocks with a hierarchy of 3 × 3 convolutions."""

    points: ClassVar = _LAYERS
    name: Literal["res2net"]
    depth: Literal[50, 101, 152] = 50
    """number of layers; default 50"""
    scale: int = Field(default=4, ge=2)
    """groups of features in each block, 2 or more; default 4"""
    base_width: PositiveInt = 26
    """features of one group in the first stage, 1 or more; default 26"""
    stride_on: Literal["1x1", "3x3"] = "3x3"
    """strided convolutions of a block: 3x3 are those of the groups, as in the authors' code (default), 1x1 the first"""
    attention: Attention = _se_at(*_LAYERS)
    """attention block of each stage; default: se at all four"""


class SeInception(Stemmed):
    """GoogLeNet (Szegedy et al. 2015) with batch norm, and attention after each Inception module."""

    points: ClassVar = tuple(f"inception_{name}" for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"))
    name: Literal["se_inception"]
    attention: Attention = _se_at(*points)
    """attention block after each module; default: se after all nine"""


class Ssrn(Network):
    """Spectral-spatial residual network (Zhong et al. 2018): blocks along the spectrum, then over space."""

    points: ClassVar = ("spectral_stem", "spectral_1", "spectral_2", "spatial_stem", "spatial_1", "spatial_2")
    points_3d: ClassVar = ("spectral_stem", "spectral_1", "spectral_2")
    least_patch: ClassVar = (3, "a 3 × 3 convolution needs")
    least_depth: ClassVar = (7, "the first spectral kernel is 7 deep; keep 7 components or more")
    name: Literal["ssrn"]
    features: PositiveInt = 24
    """features of every residual block, 1 or more; default 24"""
    dropout: Share = 0.5
    """dropout before the last layer, from 0 to below 1; default 0.5"""


class Cnn3d(Network):
    """Plain 3-D CNN: HybridSN's three 3-D convolutions, global mean pooling and one dense layer."""

    points: ClassVar = ("conv3d_1", "conv3d_2", "conv3d_3")
    points_3d: ClassVar = points
    least_patch: ClassVar = (7, "three 3 × 3 convolutions without padding need")
    least_depth: ClassVar = (13, "spectral kernels 7, 5 and 3 deep need at least 13; keep more bands")
    name: Literal["cnn3d"]
    dropout: Share = 0.4
    """dropout before the last layer, from 0 to below 1; default 0.4"""


class SpectrumFirst(Network):
    """Dense layers on every pixel's spectrum, then a learned weighted mean over the patch."""

    points: ClassVar = ("bands", "spectral_1", "spectral_2", "space")
    name: Literal["spectrum_first"]
    features: PositiveInt = 128
    """features of both dense layers, 1 or more; default 128"""
    dropout: Share = 0.5
    """dropout before the last layer, from 0 to below 1; default 0.5"""


class Ssftt(Network):
    """Spectral-spatial feature tokenization transformer (Sun et al. 2022): two convolutions, then a few tokens."""

    points: ClassVar = ("conv3d", "conv2d", "tokens", "encoder")
    points_3d: ClassVar = ("conv3d",)
    least_patch: ClassVar = (5, "two 3 × 3 convolutions without padding need")
    least_depth: ClassVar = (3, "the spectral kernel is 3 deep; keep 3 components or more")
    name: Literal["ssftt"]
    tokens: PositiveInt = 4
    """number of tokens, without the class token, 1 or more; default 4"""
    dropout: Share = 0.1
    """dropout of the tokens and in the encoder, from 0 to below 1; default 0.1"""


class SpectralFormer(Network):
    """SpectralFormer (Hong et al. 2022): a transformer whose tokens are groups of adjacent bands."""

    points: ClassVar = ("embedding", "tokens", "encoder")
    name: Literal["spectralformer"]
    mode: Literal["patch", "pixel"] = "patch"
    """what a token sees of its bands: the whole patch (default), or only the centre pixel"""
    group: KernelSize = 3
    """number of adjacent bands in a token (group-wise spectral embedding), odd; default 3"""
    fusion: bool = True
    """cross-layer adaptive fusion: each layer from the third on also sees the tokens of two layers earlier;
    default true"""
    dropout: Share = 0.1
    """dropout of the tokens and in the encoder, from 0 to below 1; default 0.1"""

    def check_input(self, *, num_bands: int, patch_size: int, origin: str = "input bands") -> None:
        super().check_input(num_bands=num_bands, patch_size=patch_size, origin=origin)
        if self.group > num_bands:
            problem = f"{origin} = {num_bands}, fewer than the bands of a group"
            raise ConfigError(f"model.group = {self.group}: {problem}; write {num_bands - 1 + num_bands % 2} or less")


class Dbda(Network):
    """Double-branch dual-attention network (Li et al. 2020): a dense spectral and a dense spatial branch."""

    points: ClassVar = ("branches", "dual_attention")
    least_depth: ClassVar = (7, "the first spectral kernel is 7 deep; keep 7 components or more")
    name: Literal["dbda"]
    dropout: Share = 0.5
    """dropout before the mean over the patch, from 0 to below 1; default 0.5"""


class S2Mamba(Network):
    """S²Mamba (Wang et al. 2025): selective state-space scans over the pixels and along the features of a patch."""

    points: ClassVar = ("embedding", "mixture")
    name: Literal["s2mamba"]
    states: PositiveInt = 16
    """states of a channel in a scan, 1 or more; default 16"""
    dropout: Share = 0.1
    """dropout of both branches, and probability that a patch skips them in training, from 0 to below 1; default 0.1"""


class PixelClassifier(Model):
    """The settings of a classifier that scikit-learn fits on the centre pixel of each patch."""


class Svm(PixelClassifier):
    """Support vector machine with an RBF kernel on the centre pixel of each patch."""

    name: Literal["svm"]
    penalty: PositiveFloat | None = None
    """penalty C, above 0; default: tuned by cross-validation on the training set"""
    gamma: PositiveFloat | None = None
    """γ of the kernel exp(-γ |x - x'|²) of two pixels' components, above 0; default: tuned as the penalty"""


class Forest(PixelClassifier):
    """Random forest (Breiman 2001) or extra trees (Geurts et al. 2006) on the centre pixel of each patch."""

    name: Literal["random_forest", "extra_trees"]
    """random_forest or extra_trees (extremely randomized trees): fitted with scikit-learn"""
    trees: PositiveInt = 300
    """number of trees, 1 or more; default 300"""
    min_leaf: PositiveInt = 1
    """smallest number of training pixels in a leaf, 1 or more; default 1"""


class Lda(PixelClassifier):
    """Linear discriminant analysis of each patch's centre pixel; priors are the classes' shares of the training set."""

    name: Literal["lda"]
    shrinkage: Annotated[float, Field(ge=0, le=1)] | None = None
    """weight of the diagonal in the shrunk covariance matrix of standardized components, from 0 to 1; default:
    estimated for each class (Ledoit and Wolf 2004)"""


def list_models() -> dict[str, type[Model]]:
    """Returns the settings class of every classifier, by name."""
    return {name: entry.settings for name, entry in Model.registry.list_entries().items()}
