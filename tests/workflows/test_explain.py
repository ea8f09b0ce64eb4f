"""What the gates do, against the gates' own outputs and by hand."""

import json

import numpy as np
import pytest
import torch

import hsi_se
from hsi_se.config.yaml_file import load_config
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.report.figures import style_class_line
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.opened import open_run
from hsi_se.sampling.patches import PatchDataset, pad_cube
from hsi_se.scene.palette import make_palette
from hsi_se.workflows import explain as explaining
from tests.conftest import CPU, ROOT, TINY

BLOCKS = "{conv3d_1: {kind: se, axis: band}, conv3d_3: {kind: eca}, fold: {kind: se}, conv2d: {kind: cbam}}"


def train(path, *overrides: str) -> RunFolder:
    return hsi_se.train(
        load_config(ROOT / "configs" / "demo.yaml", [*TINY, *overrides]), out=path, session=CPU
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    return train(tmp_path_factory.mktemp("explain") / "run", f"model.attention={BLOCKS}")


@pytest.fixture(scope="module", name="explanation")
def _explanation(run):
    return explaining.explain(run, session=CPU)


def test_the_means_are_of_what_the_gates_multiply_by_class_by_class(run, explanation):
    opened = open_run(run)
    model = build_bundled_model(opened.bundle).eval()
    padded = pad_cube(opened.components, patch_size=9, padding="reflect")
    patches = PatchDataset(padded, opened.split.test, patch_size=9).gather(
        torch.arange(len(opened.split.test))
    )
    labels = opened.scene.labels[opened.split.test[:, 0], opened.split.test[:, 1]]
    assert [gate.point for gate in explanation.gates] == ["conv3d_1", "conv3d_3", "fold", "conv2d"]
    x = patches
    ratios = {}
    with torch.inference_mode():
        for point, stage in model.stages.items():
            before = stage(x)
            x = model.attention[point](before)
            ratios[point] = (before, x)
    for gate in explanation.gates[:3]:  # behind CBAM's channels come its places
        before, after = (tensor.double() for tensor in ratios[gate.point])
        dim = 2 if gate.axis == "band" else 1
        others = [axis for axis in range(1, before.ndim) if axis != dim]
        excitation = (after.sum(others) / before.sum(others)).numpy()  # (n, channels); features are ≥ 0
        for each, row in zip(explanation.classes, gate.mean_excitation, strict=True):
            of_class = excitation[labels == each.label]
            assert len(of_class) == each.num_pixels
            expected = np.nanmean(of_class, axis=0)  # a channel that is zero everywhere shows no gate
            seen = ~np.isnan(of_class).any(axis=0)
            assert np.array(row)[seen] == pytest.approx(expected[seen], abs=1e-4)
        means = np.array(gate.mean_excitation)
        deviation = np.sqrt(np.mean([np.std(column) ** 2 for column in means.T]))
        assert gate.between_class_std == pytest.approx(deviation)


def test_the_share_of_the_variance_is_that_between_classes():
    rng = np.random.default_rng(0)
    classes = rng.integers(3, size=500)
    excitation = rng.random((500, 4)) + classes[:, None] * np.array([0.0, 0.5, 1.0, 0.0])
    means = explaining.ClassMeans(4)  # one class has no pixel
    for part in np.array_split(np.arange(500), 7):
        means.add(excitation[part], classes[part])
    within = sum(((excitation[classes == c] - excitation[classes == c].mean(0)) ** 2).sum() for c in range(3))
    total = ((excitation - excitation.mean(0)) ** 2).sum()
    assert means.means.shape == (3, 4)
    assert means.between_class_share == pytest.approx(1 - within / total)
    constant = explaining.ClassMeans(2)
    constant.add(np.full((10, 3), 0.5), np.arange(10) % 2)
    assert (constant.between_class_std, constant.between_class_share) == (0, None)


def test_gates_with_a_place_in_the_spectrum_are_mapped_to_it_and_others_say_why_not(explanation):
    spectra = {gate.point: gate.spectrum for gate in explanation.gates}
    assert [point for point, spectrum in spectra.items() if spectrum] == ["conv3d_1", "fold"]
    for gate in explanation.gates:
        if gate.spectrum is None:
            assert "features" in gate.no_spectrum
            continue
        rows = np.array(gate.spectrum.mean_excitation)
        assert rows.shape == (len(explanation.classes), 16)
        assert gate.spectrum.unit == "nm"
        assert len(gate.spectrum.positions) == 16
        means = np.array(gate.mean_excitation)  # a band's is a mean of the depths', and lies between them
        assert (rows.min(1) >= means.min(1) - 1e-12).all()
        assert (rows.max(1) <= means.max(1) + 1e-12).all()


def test_without_a_reduction_a_band_has_the_mean_of_the_depths_that_see_it():
    profile = np.array([[0.2, 0.4, 0.9]])
    # Five bands, three depths: kernels of three. The middle band is seen by all of them.
    assert explaining.to_bands(profile, np.eye(5))[0] == pytest.approx([0.2, 0.3, 0.5, 0.65, 0.9])


def test_a_band_has_the_mean_of_its_components_by_the_squares_of_their_loadings():
    components = np.array([[0.6, 0.8, 0.0], [0.8, -0.6, 0.0]])  # of three bands; the third is in neither
    found = explaining.to_bands(np.array([[0.2, 0.7]]), components)[0]
    assert found == pytest.approx([0.36 * 0.2 + 0.64 * 0.7, 0.64 * 0.2 + 0.36 * 0.7, np.nan], nan_ok=True)


def test_behind_the_fold_channels_are_features_by_depths(tmp_path):
    run = train(tmp_path / "run", "reduction={kind: none}", "model.attention={fold: {kind: se}}")
    bundle = run.read_bundle()
    depths = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 32, 4, 3, 3)  # of the 16 bands, 4 are left
    channels = build_bundled_model(bundle).stages["fold"](depths)[0, :, 0, 0].reshape(32, 4)
    assert torch.equal(channels, torch.arange(4.0).expand(32, 4))
    gate = explaining.explain(run, session=CPU).gates[0]
    profile = np.array(gate.mean_excitation).reshape(-1, 32, 4).mean(axis=1)
    found = np.array(gate.spectrum.mean_excitation)
    assert found[:, 0] == pytest.approx(profile[:, 0])  # the first band is seen by the first depth alone
    assert found[:, 1] == pytest.approx(profile[:, :2].mean(axis=1))
    assert found[:, 8] == pytest.approx(profile.mean(axis=1))
    assert found[:, -1] == pytest.approx(profile[:, -1])


def test_json_and_png_lie_beside_the_run(run, explanation):
    assert run.read_explanation() == explanation
    assert json.loads(run.explanation.read_text())["pixels"] == "test"
    assert run.explanation_figure.read_bytes().startswith(b"\x89PNG")


def luminance(colour: np.ndarray) -> float:
    """Of sRGB, as WCAG 2.2 defines it."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_lines_of_every_class_are_seen_on_white_and_neighbours_differ_in_their_dashes():
    palette = make_palette(range(1, 40))
    dashes = []
    for place, label in enumerate(range(1, 40)):
        colour, dash = style_class_line(place, palette[label])
        assert 1.05 / (luminance(colour) + 0.05) >= 2.9
        given = np.array(palette[label])
        assert colour.argmax() in np.flatnonzero(given == given.max()), "the hue stays"
        dashes.append(dash)
    assert all(len({*dashes[place : place + 4]}) == 4 for place in range(36))
    assert style_class_line(0, (0, 0, 255))[0] == pytest.approx([0, 0, 1]), "what is dark stays as it is"


def test_the_command_prints_a_row_for_every_gate(call, run):
    code, out, _ = call("explain", run, "--device", "cpu")
    assert code == 0
    for gate in run.read_explanation().gates:
        assert any(
            gate.point in line and f"{gate.between_class_std:.4f}" in line for line in out.splitlines()
        )
    assert out.splitlines()[-2:] == [f"wrote:  {run.explanation}", f"wrote:  {run.explanation_figure}"]


@pytest.mark.parametrize(
    ("attention", "found"),
    [("{}", "no attention"), ("{fold: {kind: strip_pooling}}", "only fold: StripPooling")],
)
def test_a_network_without_channel_gates_is_refused(call, tmp_path, attention, found):
    run = train(tmp_path / "run", f"model.attention={attention}")
    code, out, err = call("explain", run)
    assert (code, out) == (2, "")
    assert err.startswith(f"hsi-se: {run}: the network has no channel gate ({found}); train one with --set")
    assert len(err.splitlines()) == 1


def test_a_folder_without_a_run_is_refused(call, tmp_path):
    code, _, err = call("explain", tmp_path)
    assert code == 2
    assert "not a run folder" in err


@pytest.mark.slow
def test_gates_inside_residual_blocks_are_found_one_by_one(tmp_path):
    run = train(
        tmp_path / "run", "model={name: se_resnet, attention: {layer1: {kind: se}, layer2: {kind: eca}}}"
    )
    points = [gate.point for gate in explaining.explain(run, session=CPU).gates]
    assert len(points) == 4
    assert [point.split(".")[0] for point in points] == ["layer1", "layer1", "layer2", "layer2"]
