"""The field's networks: parameters by the papers' layers, outputs by numpy, and the laws of their layers."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import erf, expit, softmax
from torch import nn

from hsi_se.errors import ConfigError
from hsi_se.models.cost import count_parameters, count_stage_costs
from hsi_se.models.dbda import DualAttention
from hsi_se.models.network import Drawn
from hsi_se.models.s2mamba import scan
from hsi_se.models.ssftt import Tokenizer
from hsi_se.models.transformer import Encoder
from tests.models.test_networks import build

Array = NDArray[np.float64]
NAMES = ("ssftt", "spectralformer", "dbda", "s2mamba")


# ------------------------------------------------------------------------------------------- parameters


def dense(num_in: int, num_out: int, *, bias: bool = True) -> int:
    return (num_in + bias) * num_out


def encoder(*, bias: bool) -> int:
    """Two norms, queries, keys and values, their projection, two dense layers of 8 hidden features."""
    return 2 * 128 + 3 * dense(64, 64, bias=bias) + dense(64, 64) + dense(64, 8) + dense(8, 64)


def branch(channels: int, directions: int) -> int:
    """Two projections, a depth-wise convolution, a scan of 16 states and rank 4, a norm."""
    scans = directions * channels * ((4 + 2 * 16) + 4 + 1 + 16 + 1)
    return 64 * 256 + dense(9, 128) + scans + 2 * channels + 128 * 64


def count_ssftt(k: int, patch: int, classes: int) -> int:  # noqa: ARG001
    convs = dense(27, 8) + 2 * 8 + dense(8 * (k - 2) * 9, 64) + 2 * 64
    return convs + 64 * 4 + 64 * 64 + 6 * 64 + encoder(bias=True) + dense(64, classes)


def count_spectralformer(k: int, patch: int, classes: int) -> int:
    fusions = 3 * dense(2 * (k + 1), k + 1)
    return dense(3 * patch**2, 64) + (k + 2) * 64 + 5 * encoder(bias=False) + fusions + 2 * 64 + dense(64, classes)


def count_dbda(k: int, patch: int, classes: int) -> int:  # noqa: ARG001
    dense_blocks = sum(dense(size * width, 12) + 2 * width for size in (7, 9) for width in (24, 36, 48))
    spectral = dense(7, 24) + 2 * 60 + dense(60 * ((k - 7) // 2 + 1), 60)
    attention = 1 + 2 * dense(60, 7) + dense(60, 60) + 1
    return dense_blocks + spectral + dense(k, 24) + attention + 2 * 120 + dense(120, classes)


def count_s2mamba(k: int, patch: int, classes: int) -> int:
    gate = 2 * 128 + dense(128, 128) + dense(128, 2)
    return dense(k, 64) + 2 * 64 + branch(128, 4) + branch(patch**2, 2) + gate + 2 * 64 + dense(64, classes)


BY_LAYER: dict[str, Callable[[int, int, int], int]] = {
    "ssftt": count_ssftt,
    "spectralformer": count_spectralformer,
    "dbda": count_dbda,
    "s2mamba": count_s2mamba,
}


@pytest.mark.parametrize("name", NAMES)
def test_every_network_has_the_parameters_of_its_papers_layers(name):
    for bands, patch, classes in ((30, 13, 16), (17, 7, 5)):
        network = build(name, bands=bands, patch=patch, classes=classes)
        assert count_parameters(network) == BY_LAYER[name](bands, patch, classes)


@pytest.mark.parametrize(
    ("name", "changes", "bands", "patch", "expected"),
    [
        ("ssftt", {}, 30, 13, 153_224),
        ("spectralformer", {"mode": "pixel"}, 200, 1, 346_361),
        ("spectralformer", {}, 200, 7, 355_577),
        ("dbda", {}, 200, 9, 382_328),
        ("s2mamba", {}, 200, 7, 118_632),
    ],
)
def test_the_docstrings_state_the_parameters_of_the_papers_settings(name, changes, bands, patch, expected):
    network = build(name, bands=bands, patch=patch, classes=16, **changes)
    assert count_parameters(network) == expected == BY_LAYER[name](bands, patch, 16)
    assert f"{expected:,}" in (type(network).__doc__ or "")


# ---------------------------------------------------------------------------------------- outputs by numpy


class Weights:
    """A network's weights in float64, and what its layers compute with them in numpy; `at` is a layer's name."""

    def __init__(self, model: nn.Module) -> None:
        self.values = {name: value.double().numpy() for name, value in model.state_dict().items()}

    def __getitem__(self, name: str) -> Array:
        return self.values[name]

    def dense(self, x: Array, at: str) -> Array:
        return x @ self[f"{at}.weight"].T + self.values.get(f"{at}.bias", 0)

    def conv(self, x: Array, at: str, *, padding: tuple[int, ...] = (), stride: int = 1) -> Array:
        """Of `(n, c, …)`; the stride is that of the first axis."""
        weight = self[f"{at}.weight"]
        axes = tuple(range(2, x.ndim))
        x = np.pad(x, [(0, 0), (0, 0), *((size, size) for size in padding or [0] * len(axes))])
        windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=axes)[:, :, ::stride]
        letters = "xyz"[: len(axes)], "uvw"[: len(axes)]
        if weight.shape[1] == 1 and x.shape[1] > 1:  # depth-wise
            y = np.einsum(f"nc{letters[0]}{letters[1]},c{letters[1]}->nc{letters[0]}", windows, weight[:, 0])
        else:
            y = np.einsum(f"nc{letters[0]}{letters[1]},oc{letters[1]}->no{letters[0]}", windows, weight)
        return y + self[f"{at}.bias"].reshape(-1, *[1] * len(axes))

    def batch_norm(self, x: Array, at: str, *, eps: float = 1e-5) -> Array:
        mean, var, scale, shift = (
            self[f"{at}.{name}"].reshape(-1, *[1] * (x.ndim - 2))
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(var + eps) * scale + shift

    def layer_norm(self, x: Array, at: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * self[f"{at}.weight"] + self[f"{at}.bias"]
        )

    def encode(self, x: Array, at: str, *, heads: int) -> Array:
        """One encoder layer on tokens `(n, t, c)`, head by head."""
        normed = self.layer_norm(x, f"{at}.norm")
        queries, keys, values = np.split(self.dense(normed, f"{at}.qkv"), 3, axis=2)
        width = x.shape[2] // heads
        found = []
        for head in range(heads):
            q, k, v = (each[..., head * width : (head + 1) * width] for each in (queries, keys, values))
            found.append(softmax(q @ k.swapaxes(1, 2) / np.sqrt(width), axis=2) @ v)
        x = x + self.dense(np.concatenate(found, 2), f"{at}.out.0")
        hidden = gelu(self.dense(self.layer_norm(x, f"{at}.dense.0"), f"{at}.dense.1"))
        return x + self.dense(hidden, f"{at}.dense.4")

    def add_class_token(self, tokens: Array, at: str) -> Array:
        """Of `(n, t, c)`."""
        first = np.broadcast_to(self[f"{at}.token"][:, 0, 0], (len(tokens), 1, tokens.shape[2]))
        return np.concatenate([first, tokens], 1) + self[f"{at}.positions"][:, :, 0].T


def shake(model: nn.Module) -> nn.Module:
    """Moves every weight and statistic, so that none is 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for values in (*model.parameters(), *(each for each in model.buffers() if each.is_floating_point())):
            values += 0.2 * (2 * torch.rand(values.shape, generator=generator) - 1)
    return model


def gelu(x: Array) -> Array:
    return x * (1 + erf(x / np.sqrt(2))) / 2


def mish(x: Array) -> Array:
    return x * np.tanh(np.logaddexp(0, x))


def compute_ssftt(w: Weights, x: Array) -> Array:
    x = np.maximum(w.batch_norm(w.conv(x, "stages.conv3d.conv"), "stages.conv3d.norm"), 0)
    x = x.reshape(len(x), -1, *x.shape[3:])
    x = np.maximum(w.batch_norm(w.conv(x, "stages.conv2d.1.conv"), "stages.conv2d.1.norm"), 0)
    pixels = x.reshape(len(x), 64, -1).swapaxes(1, 2)
    weights = softmax(w.dense(pixels, "stages.tokens.0.score"), axis=1)
    tokens = weights.swapaxes(1, 2) @ w.dense(pixels, "stages.tokens.0.value")
    tokens = w.encode(w.add_class_token(tokens, "stages.tokens.1"), "stages.encoder.layers.0", heads=8)
    return w.dense(tokens[:, 0], "head.0")


def compute_spectralformer(w: Weights, x: Array, *, pixel: bool = False) -> Array:
    n, _, k, p, _ = x.shape
    pixels = x[:, 0, :, p // 2, p // 2][:, None] if pixel else x.reshape(n, k, -1).swapaxes(1, 2)  # (n, pixels, k)
    groups = np.stack([np.roll(pixels, shift, axis=2) for shift in (1, 0, -1)], 3)  # the band before, itself, the next
    weight, bias = (w[f"stages.embedding.conv.{name}"] for name in ("weight", "bias"))
    tokens = w.add_class_token(np.einsum("nakg,cag->nkc", groups, weight) + bias, "stages.tokens")
    found = [tokens]
    for layer in range(5):
        if layer >= 2:
            fusion = f"stages.encoder.fusions.{layer - 2}"
            pair = np.stack([tokens, found[layer - 2]], 3)  # (n, t, c, 2)
            tokens = np.einsum("ntcv,otv->noc", pair, w[f"{fusion}.weight"][:, :, 0]) + w[f"{fusion}.bias"][:, None]
        tokens = w.encode(tokens, f"stages.encoder.layers.{layer}", heads=4)
        found.append(tokens)
    return w.dense(w.layer_norm(tokens[:, 0], "head.0"), "head.1")


def compute_dbda(w: Weights, x: Array) -> Array:
    def widen(y: Array, at: str, padding: tuple[int, ...]) -> Array:
        for layer in range(3):
            normed = mish(w.batch_norm(y, f"{at}.layers.{layer}.0", eps=1e-3))
            y = np.concatenate([y, w.conv(normed, f"{at}.layers.{layer}.2", padding=padding)], 1)
        return y

    y = widen(w.conv(x, "stages.branches.spectral.0", stride=2), "stages.branches.spectral.1", (3, 0, 0))
    y = mish(w.batch_norm(y, "stages.branches.spectral.2", eps=1e-3))
    spectral = w.conv(y, "stages.branches.spectral.4")[:, :, 0]
    spatial = widen(w.conv(x[:, 0], "stages.branches.spatial.1"), "stages.branches.spatial.2", (1, 1))
    at, size = "stages.dual_attention", spectral.shape
    rows = spectral.reshape(*size[:2], -1)
    of_channels = softmax(rows @ rows.swapaxes(1, 2), axis=2) @ rows
    query, key, value = (
        w.conv(spatial, f"{at}.{name}").reshape(len(x), -1, rows.shape[2]) for name in ("query", "key", "value")
    )
    of_pixels = np.einsum("nqk,nck->ncq", softmax(query.swapaxes(1, 2) @ key, axis=2), value)
    spectral = spectral + w[f"{at}.channel_strength"] * of_channels.reshape(size)
    spatial = spatial + w[f"{at}.position_strength"] * of_pixels.reshape(size)
    y = mish(w.batch_norm(np.concatenate([spectral, spatial], 1), "head.0", eps=1e-3))
    return w.dense(y.mean((2, 3)), "head.5")


def scan_step_by_step(x: Array, step: Array, decay: Array, write: Array, read: Array) -> Array:
    """One sequence `(t, c)` of the selective scan, channel by channel and state by state."""
    y = np.zeros_like(x)
    for channel in range(x.shape[1]):
        for state in range(decay.shape[1]):
            held = 0.0
            for now in range(len(x)):
                size = step[now, channel]
                held = np.exp(size * decay[channel, state]) * held + size * write[now, state] * x[now, channel]
                y[now, channel] += read[now, state] * held
    return y


def compute_s2mamba(w: Weights, x: Array, *, states: int) -> Array:
    p = x.shape[-1]
    pixels = gelu(w.conv(x[:, 0], "stages.embedding.1")).transpose(0, 2, 3, 1)  # (n, p, p, 64)
    at = "stages.mixture"

    def run_scan(sequence: Array, name: str, direction: int) -> Array:
        part = {key: w[f"{at}.{name}.scan.{key}"] for key in ("project", "step_weight", "decay_log")}
        bias, skip = (w[f"{at}.{name}.scan.{key}"].reshape(len(part["project"]), -1) for key in ("step_bias", "skip"))
        step, write, read = np.split(sequence @ part["project"][direction], [4, 4 + states], axis=1)
        step = np.logaddexp(0, step @ part["step_weight"][direction] + bias[direction])
        y = scan_step_by_step(sequence, step, -np.exp(part["decay_log"][direction]), write, read)
        return y + skip[direction] * sequence

    def run_branch(name: str, orders: list[Callable[[Array], Array]], backs: list[Callable[[Array], Array]]) -> Array:
        expanded, gate = np.split(w.dense(w.layer_norm(pixels, f"{at}.norm"), f"{at}.{name}.expand"), 2, axis=3)
        convolved = w.conv(expanded.transpose(0, 3, 1, 2), f"{at}.{name}.conv", padding=(1, 1))
        image = (convolved * expit(convolved)).transpose(0, 2, 3, 1)  # (n, p, p, 128)
        pairs = list(zip(orders, backs, strict=True))
        total = np.zeros((len(x), *orders[0](image[0]).shape))
        for number, (order, back) in enumerate(pairs):
            total += [back(run_scan(order(one), name, number)) for one in image]
        normed = w.layer_norm(total, f"{at}.{name}.norm")
        if name == "spectral":
            normed = normed.swapaxes(1, 2).reshape(image.shape)
        return w.dense(normed.reshape(image.shape) * gelu(gate), f"{at}.{name}.reduce")

    def turn(image: Array) -> Array:
        return image.reshape(p, p, -1).swapaxes(0, 1).reshape(p * p, -1)

    rows: list[Callable[[Array], Array]] = [
        lambda image: image.reshape(p * p, -1), turn, lambda image: image.reshape(p * p, -1)[::-1],
        lambda image: turn(image)[::-1],
    ]  # fmt: skip
    backs: list[Callable[[Array], Array]] = [lambda y: y, turn, lambda y: y[::-1], lambda y: turn(y[::-1])]
    spatial = run_branch("spatial", rows, backs)
    features: list[Callable[[Array], Array]] = [
        lambda image: image.reshape(p * p, -1).T, lambda image: image.reshape(p * p, -1).T[::-1],
    ]  # fmt: skip
    spectral = run_branch("spectral", features, [lambda y: y, lambda y: y[::-1]])
    gates = w.dense(w.layer_norm(np.concatenate([spatial, spectral], 3), f"{at}.gate.0"), f"{at}.gate.1")
    gates = softmax(w.dense(gelu(gates), f"{at}.gate.3"), axis=3)
    gates[gates < 0.1] = 0
    mixed = pixels + gates[..., :1] * spatial + gates[..., 1:] * spectral
    return w.dense(w.layer_norm(mixed, f"{at}.out_norm").mean((1, 2)), "head.3")


@pytest.mark.parametrize(
    ("name", "changes", "patch", "compute"),
    [
        ("ssftt", {}, 7, compute_ssftt),
        ("spectralformer", {}, 5, compute_spectralformer),
        ("spectralformer", {"mode": "pixel"}, 5, lambda w, x: compute_spectralformer(w, x, pixel=True)),
        ("dbda", {}, 5, compute_dbda),
        ("s2mamba", {"states": 3}, 3, lambda w, x: compute_s2mamba(w, x, states=3)),
    ],
)
def test_the_output_is_that_of_the_papers_equations_in_numpy(name, changes, patch, compute):
    network = shake(build(name, bands=9, patch=patch, **changes)).double().eval()
    x = np.random.default_rng(2).normal(size=(2, 1, 9, patch, patch))
    with torch.no_grad():
        logits = network(torch.from_numpy(x)).numpy()
    expected = compute(Weights(network), x)
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


# ---------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_drawn_from_the_seed_alone(name):
    torch.manual_seed(1)
    one = build(name, seed=7).state_dict()
    torch.manual_seed(2)
    same, other = build(name, seed=7), build(name, seed=8)
    assert all(torch.equal(value, one[key]) for key, value in same.state_dict().items())
    drawn = [key for key, module in same.named_modules() if isinstance(module, Drawn)]
    assert bool(drawn) == (name != "dbda")
    for key, value in other.state_dict().items():
        is_own = any(key.startswith(f"{layer}.") for layer in drawn) and not key.endswith(("decay_log", "skip"))
        if is_own and (name, key) != ("ssftt", "stages.tokens.1.token"):  # which starts at zero
            assert not torch.equal(value, one[key]), key


def test_step_sizes_of_a_scan_start_between_a_thousandth_and_a_tenth():
    network = build("s2mamba")
    for part in (network.stages["mixture"].spatial, network.stages["mixture"].spectral):
        steps = nn.functional.softplus(part.scan.step_bias.detach())
        assert 1e-3 * 0.999 <= float(steps.min()) < 2e-3
        assert 0.05 < float(steps.max()) <= 0.1 * 1.001


# ------------------------------------------------------------------------------------------------- laws


def test_a_scan_in_float64_is_the_recurrence_step_by_step():
    rng = np.random.default_rng(0)
    n, r, t, c, s = 2, 3, 40, 2, 4
    x, step = rng.normal(size=(n, r, t, c)), rng.uniform(0.001, 2, size=(n, r, t, c))
    decay, write, read = -rng.uniform(0.1, 16, size=(r, c, s)), *rng.normal(size=(2, n, r, t, s))
    named = {"decay": decay, "write": write, "read": read}
    y = scan(torch.from_numpy(x), torch.from_numpy(step), **{k: torch.from_numpy(v) for k, v in named.items()})
    for one, direction in itertools.product(range(n), range(r)):
        at = one, direction
        expected = scan_step_by_step(x[at], step[at], decay[direction], write[at], read[at])
        np.testing.assert_allclose(y[at], expected, rtol=1e-12, atol=1e-12)


def test_a_scan_does_not_see_later_steps():
    torch.manual_seed(0)
    x, step, write, read = (
        torch.randn(1, 1, 9, 2),
        torch.rand(1, 1, 9, 2),
        torch.randn(1, 1, 9, 3),
        torch.randn(1, 1, 9, 3),
    )
    decay = -torch.rand(1, 2, 3)
    changed = x.clone()
    changed[:, :, 6:] += 1
    before, after = (scan(each, step, decay=decay, write=write, read=read) for each in (x, changed))
    assert torch.equal(before[:, :, :6], after[:, :, :6])
    assert (before[:, :, 6:] != after[:, :, 6:]).all()


def test_tokens_are_weighted_means_that_do_not_depend_on_the_order_of_the_pixels():
    torch.manual_seed(0)
    tokenizer, x = Tokenizer(8, 4), torch.randn(2, 8, 3, 5)
    order = torch.randperm(15)
    torch.testing.assert_close(tokenizer(x.flatten(2)[:, :, order].view_as(x)), tokenizer(x))
    same = torch.randn(2, 8, 1, 1).expand(-1, -1, 3, 5)  # the mean of equal pixels is each of them
    values = tokenizer.value(same[:, :, 0, 0])
    torch.testing.assert_close(tokenizer(same), values[:, :, None, None].expand(-1, -1, 4, 1))


def test_an_encoder_keeps_the_order_of_its_tokens():
    torch.manual_seed(0)
    encoder = Encoder(2, 8, heads=2, hidden=4, dropout=0.0, has_bias=True)
    x, order = torch.randn(3, 8, 6, 1), torch.randperm(6)
    torch.testing.assert_close(encoder(x[:, :, order]), encoder(x)[:, :, order])


def test_dual_attention_starts_as_the_identity_and_keeps_the_order_of_pixels_and_spectral_channels():
    torch.manual_seed(0)
    block, x = DualAttention(16), torch.randn(2, 32, 3, 4)
    assert torch.equal(block(x), x)
    nn.init.ones_(block.channel_strength)
    nn.init.ones_(block.position_strength)
    pixels, channels = torch.randperm(12), torch.cat([torch.randperm(16), torch.arange(16, 32)])
    moved = x.flatten(2)[:, :, pixels].view_as(x)[:, channels]
    torch.testing.assert_close(block(moved), block(x).flatten(2)[:, :, pixels].view_as(x)[:, channels])


def test_a_pixel_spectralformer_sees_the_centre_pixel_alone():
    network = build("spectralformer", mode="pixel").eval()
    x = torch.randn(2, 1, 15, 9, 9)
    around = x + torch.nn.functional.pad(torch.zeros(1, 1), (4, 4, 4, 4), value=1.0)
    assert torch.equal(network(around), network(x))
    whole = build("spectralformer").eval()
    assert not torch.allclose(whole(around), whole(x))


@pytest.mark.parametrize(("bands", "group", "most"), [(4, 5, 3), (3, 5, 3), (1, 3, 1)])
def test_a_group_of_more_bands_than_there_are_is_refused(bands, group, most):
    with pytest.raises(ConfigError, match=rf"model\.group = {group}: input bands = {bands}, .* write {most} or less$"):
        build("spectralformer", bands=bands, group=group)
    assert build("spectralformer", bands=bands, group=most).eval()(torch.zeros(1, 1, bands, 9, 9)).shape == (1, 5)


def test_fused_attention_of_any_network_is_counted():
    class Fused(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x.flatten(2).transpose(1, 2)[:, None]
            return nn.functional.scaled_dot_product_attention(rows, rows, rows)[:, 0].transpose(1, 2).view_as(x)

    network: Any = build("ssrn", patch=5)
    network.stages["spatial_2"] = Fused()
    rows = {row.name: row.macs for row in count_stage_costs(network)}
    assert rows["spatial_2"] == 2 * 24 * 9**2
