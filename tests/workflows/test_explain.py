"""What the gates do, against the gates' own outputs and by hand."""

import json

import numpy as np
import pytest
import scipy.stats
import torch

import hsi_se
from hsi_se.config.experiment import MnfReduction
from hsi_se.config.yaml_file import load_config
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.progress import Silent
from hsi_se.reports.figures import style_class_line
from hsi_se.reports.tables import describe_gates, describe_modes
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.opened import open_run
from hsi_se.runs.records import GateExplanation, ModeComparison
from hsi_se.sampling.patches import PatchDataset, pad_cube
from hsi_se.sampling.reduction import fit_reduction
from hsi_se.scene.scene import make_palette
from hsi_se.workflows import explain as explaining
from tests.conftest import CPU, ROOT, TINY

BLOCKS = "{conv3d_1: {kind: se, axis: band}, conv3d_3: {kind: eca}, fold: {kind: se}, conv2d: {kind: cbam}}"


def train(path, *overrides: str) -> RunFolder:
    return hsi_se.train(load_config(ROOT / "configs" / "demo.yaml", [*TINY, *overrides]), out=path, session=CPU)


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
    patches = PatchDataset(padded, opened.split.test, patch_size=9).gather(torch.arange(len(opened.split.test)))
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


def add_all(excitation: np.ndarray, classes: np.ndarray, num_classes: int) -> explaining.ClassMeans:
    means = explaining.ClassMeans(num_classes)
    for part in np.array_split(np.arange(len(classes)), 7):
        means.add(excitation[part], classes[part])
    return means


def test_the_share_of_the_variance_is_hays_omega_squared_where_classes_are_equal():
    rng = np.random.default_rng(0)
    classes = np.arange(300) % 3
    excitation = rng.random((300, 4)) + classes[:, None] * np.array([0.0, 0.5, 1.0, 0.0])
    means = add_all(excitation, classes, 4)  # one class has no pixel
    within = sum(((excitation[classes == c] - excitation[classes == c].mean(0)) ** 2).sum() for c in range(3))
    total = ((excitation - excitation.mean(0)) ** 2).sum()
    mean_square = within / (300 - 3)
    assert means.means.shape == (3, 4)
    expected = (total - within - 2 * mean_square) / (total + mean_square)  # Hays 1963
    assert means.between_class_share == pytest.approx(expected)


def test_noise_and_the_sizes_of_classes_do_not_change_the_share():
    rng = np.random.default_rng(1)
    shares, etas = [], []
    for _ in range(200):
        noise, few = rng.normal(size=(20, 3)), np.arange(20) % 5  # four pixels a class: no effect at all
        shares.append(add_all(noise, few, 5).between_class_share)
        group = np.stack([noise[few == c].mean(0) for c in range(5)])
        etas.append(4 * ((group - noise.mean(0)) ** 2).sum() / ((noise - noise.mean(0)) ** 2).sum())
    assert np.mean(etas) > 0.15, "η² finds one"
    assert np.mean(shares) < 0.05
    centres = np.array([0.0, 1.0, 3.0])
    found = []
    for sizes in ((4000, 4000, 4000), (11_000, 900, 100)):
        classes = np.repeat([0, 1, 2], sizes)
        found.append(add_all(rng.normal(centres[classes])[:, None], classes, 3).between_class_share)
    assert found == pytest.approx([centres.var() / (centres.var() + 1)] * 2, abs=0.03)


def test_without_variance_or_a_second_class_there_is_no_share():
    constant = add_all(np.full((10, 3), 0.5), np.arange(10) % 2, 2)
    assert (constant.between_class_std, constant.between_class_share) == (0, None)
    assert add_all(np.random.default_rng(0).random((10, 3)), np.zeros(10, int), 2).between_class_share is None
    assert add_all(np.random.default_rng(0).random((2, 3)), np.arange(2), 2).between_class_share is None
    single = add_all(np.array([[0.0], [1.0], [9.0]]), np.array([0, 0, 1]), 2)  # its noise is that of the other
    assert 0.9 < single.between_class_share < 1


# ------------------------------------------------------------------------------- the claim, in words


def make_gate(share: float | None, std: float = 0.1, *, point: str = "fold", axis: str = "feature"):
    return GateExplanation(
        point=point, block="se", axis=axis, between_class_std=std, between_class_share=share,
        mean_excitation=((0.4,), (0.5,)), spectrum=None, no_spectrum="",
    )  # fmt: skip


def describe(*seeds: tuple[float | None, float | None], stds: tuple[float, float] = (0.02, 0.1)) -> str:
    runs = [
        [make_gate(early, stds[0], point="conv3d_1"), make_gate(0.5), make_gate(late, stds[1], point="conv2d")]
        for early, late in seeds
    ]
    return describe_gates(runs)


def test_one_run_answers_the_claim_without_an_interval():
    text = describe((0.03, 0.612))
    assert "3.0 % of the variance (ω²) at conv3d_1 and 61.2 % at conv2d" in text
    assert "0.0200 and 0.1000: early gates treat the classes nearly alike, and late gates differ more." in text
    assert text.endswith("One run gives no interval; hsi-se train --seeds does.")


@pytest.mark.parametrize(
    ("seeds", "stds", "answer"),
    [
        ([(0.4, 0.6)], (0.02, 0.1), "early gates already differ by class, and late gates differ more."),
        ([(0.4, 0.6)], (0.001, 0.1), "early gates treat the classes nearly alike, and late gates differ more."),
        ([(0.4, 0.1)], (0.2, 0.1), "early gates already differ by class, and late gates differ less."),
        ([(0.4, 0.6)], (0.2, 0.1), "late gates differ more, though not by the standard deviation."),
        ([(0.4, 0.4)], (0.1, 0.1), "and no difference from the late gates is shown."),
        ([(0.3, 0.5), (0.3, 0.2)], (0.02, 0.1), "and no difference from the late gates is shown."),
        ([(0.3, 0.5), (0.3, 0.51), (0.2, 0.4)], (0.02, 0.1), "differ by class, and late gates differ more."),
    ],
)
def test_the_answer_follows_from_the_shares_and_their_interval(seeds, stds, answer):
    assert answer in describe(*seeds, stds=stds)


def test_over_seeds_the_intervals_are_students():
    seeds = [(0.1, 0.5), (0.2, 0.7), (0.15, 0.75)]
    text = describe(*seeds)
    late = [late for _, late in seeds]
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(late), scipy.stats.sem(late))
    assert f"65.0 % [{100 * low:.1f}, {100 * min(high, 1):.1f}] at conv2d" in text
    lead = [late - early for early, late in seeds]
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(lead), scipy.stats.sem(lead))
    assert text.endswith(
        f"Late minus early: +{100 * np.mean(lead):.1f} points, 95 % interval +{100 * low:.1f} to "
        f"+{100 * high:.1f}, n = 3."
    )
    assert "One run" not in text


def test_a_gate_that_never_changes_treats_all_classes_alike():
    text = describe((None, 0.6), (0.02, 0.7), stds=(0.0, 0.1))
    assert "1.0 % [0.0, 13.7] of the variance" in text
    assert "A gate that never changes counts as 0 % (1 of 4)." in text


def test_other_networks_get_a_sentence_that_fits():
    nothing = "The network has no channel gate to show, so there are no early and late gates to compare."
    assert describe_gates([[]]) == nothing
    assert describe_gates([[make_gate(0.25)]]).startswith(
        "The class explains 25.0 % of the variance (ω²) of the only gate, at fold. Early and late gates can"
    )
    at_bands = describe_gates([[make_gate(0.1, axis="band", point="conv3d_1"), make_gate(0.5)]])
    assert "at conv3d_1 (spectral depth) and 50.0 % at fold" in at_bands
    one = make_gate(None).model_copy(update={"mean_excitation": ((0.4,),)})
    assert "of one class" in describe_gates([[one, one]])


# ----------------------------------------------------------------------------------- training mode


def test_two_passes_in_training_mode_are_those_of_torch(run, explanation):
    opened, found = open_run(run), explanation.modes
    model = build_bundled_model(opened.bundle)
    patches = PatchDataset(
        pad_cube(opened.components, patch_size=9, padding="reflect"), opened.split.test, patch_size=9
    )
    num = len(patches)
    truth = np.searchsorted(opened.scene.class_ids, opened.scene.labels[tuple(opened.split.test.T)])
    everything = patches.gather(torch.arange(num))
    with torch.no_grad():
        plain = model.eval()(everything).argmax(1).numpy()
        model.train()
        torch.manual_seed(opened.record.seed)
        parts = np.array_split(np.arange(num), -(-num // 32))
        passes = [np.concatenate([model(everything[part]).argmax(1).numpy() for part in parts]) for _ in range(2)]
    assert found.evaluation == pytest.approx((plain == truth).mean(), abs=2 / num)
    assert found.training == pytest.approx([(each == truth).mean() for each in passes], abs=2 / num)
    assert found.num_changed == pytest.approx((passes[0] != passes[1]).sum(), abs=3)
    assert found.num_changed > 0
    assert (found.num_pixels, found.num_test, found.batch_size) == (num, num, 32)
    assert found.causes == ("dropout is active", "batch norm uses each batch")
    for accuracy in (found.evaluation, *found.training):
        assert f"{100 * accuracy:.2f} %" in explanation.modes_in_words
    assert f"{100 * found.num_changed / num:.1f} % of the pixels" in explanation.modes_in_words


def test_the_model_its_statistics_and_the_random_numbers_stay_as_they_are(run):
    opened = open_run(run)
    model = build_bundled_model(opened.bundle).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    zeros = np.zeros(len(opened.split.test), np.int64)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    assert explaining.compare_modes(model, opened, zeros, zeros, Silent()).num_changed > 0
    assert torch.rand(1) == expected
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_of_many_test_pixels_a_stratified_sample_is_drawn(run, explanation, monkeypatch):
    classes = np.random.default_rng(0).choice(4, size=1000, p=[0.6, 0.3, 0.09, 0.01])
    sample = explaining.draw_stratified(classes, most=100)
    assert len(np.unique(sample)) == 100
    assert (np.diff(sample) > 0).all()
    assert np.bincount(classes[sample]) == pytest.approx(np.bincount(classes) / 10, abs=1)
    assert (explaining.draw_stratified(classes, most=1000) == np.arange(1000)).all()
    monkeypatch.setattr(explaining, "_MOST_PIXELS", 100)
    opened = open_run(run)
    zeros = np.zeros(len(opened.split.test), np.int64)
    found = explaining.compare_modes(build_bundled_model(opened.bundle), opened, zeros, zeros, Silent())
    assert (found.num_pixels, found.num_test) == (100, explanation.modes.num_test)
    assert f"a stratified sample of 100 of {found.num_test:,} test pixels" in describe_modes([found])


@pytest.mark.parametrize(
    ("changes", "causes", "differ"),
    [
        (("model.norm=none",), ("dropout is active",), True),
        (("model.dropout=0",), ("batch norm uses each batch",), False),
        (("model.norm=none", "model.dropout=0"), (), False),
    ],
)
def test_the_sentence_names_what_the_mode_changes(tmp_path, changes, causes, differ):
    found = explaining.explain(train(tmp_path / "run", "model.attention={}", *changes), session=CPU)
    assert found.modes.causes == causes
    assert (found.modes.num_changed > 0) == differ
    if not causes:
        assert found.modes.training is None
        assert found.modes_in_words == (
            "Training mode changes nothing: the network has neither dropout nor batch norm."
        )
    else:
        assert f"In training mode ({causes[0]}, in row order, 32 a batch) two passes give" in found.modes_in_words


def test_over_seeds_the_cost_of_training_mode_has_an_interval():
    runs = [
        ModeComparison(
            num_pixels=1000, num_test=1000, batch_size=64, causes=("dropout is active",), evaluation=0.89,
            training=(low, low + 0.02), num_changed=50,
        )
        for low in (0.82, 0.80, 0.84)
    ]  # fmt: skip
    text = describe_modes(runs)
    lost = [0.06, 0.08, 0.04]
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(lost), scipy.stats.sem(lost))
    assert f"Evaluation minus training mode: +6.0 points, 95 % interval +{100 * low:.1f} to +{100 * high:.1f}" in text
    assert "5.0 % of the pixels change class in between" in text


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


def test_a_band_of_noise_fractions_has_the_gates_by_their_shares_in_the_response_to_it(small_scene):
    settings = MnfReduction(kind="mnf", components=6, fit_on="scene")
    reduction = fit_reduction(small_scene.cube, settings, train_pixels=np.argwhere(small_scene.labels > 0))
    gates = np.random.default_rng(0).random((2, 6))
    found = explaining.to_bands(gates, reduction.components)
    spectra = small_scene.cube[:3, :4].astype(np.float64)
    before = reduction.apply(spectra) * reduction.scale  # with noise of unit variance in each
    for band in range(20):
        changed = spectra.copy()
        changed[..., band] += 1000
        squares = ((reduction.apply(changed) * reduction.scale - before) ** 2).mean(axis=(0, 1))
        assert found[:, band] == pytest.approx(gates @ squares / squares.sum(), rel=1e-3)
    assert np.linalg.norm(reduction.components @ reduction.components.T - np.eye(6)) > 0.1  # so not as of a PCA
    alike = explaining.to_bands(np.full((1, 6), 0.3), reduction.components)
    np.testing.assert_allclose(alike, 0.3)


def test_the_units_of_the_bands_do_not_change_what_a_gate_does_to_them(small_scene):
    settings = MnfReduction(kind="mnf", components=6, fit_on="scene")
    train, gates = np.argwhere(small_scene.labels > 0), np.random.default_rng(0).random((2, 6))
    found = [
        explaining.to_bands(gates, fit_reduction(small_scene.cube * units, settings, train_pixels=train).components)
        for units in (1.0, np.geomspace(1e-3, 1e3, 20))
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)


def test_noise_fractions_are_explained_at_the_wavelengths_of_the_scene(tmp_path):
    reduction = "reduction={kind: mnf, components: 13, fit_on: train}"
    run = train(tmp_path / "run", reduction, f"model.attention={BLOCKS}", "train.epochs=1")
    gates = {gate.point: gate for gate in explaining.explain(run, session=CPU).gates}
    spectrum, gate = gates["conv3d_1"].spectrum, np.array(gates["conv3d_1"].mean_excitation)  # of 7 depths
    assert len(spectrum.positions) == 16
    seen = np.array([gate[:, max(0, k - 6) : k + 1].mean(axis=1) for k in range(13)])  # kernels of 7 components
    squares = run.read_bundle().reduction.components ** 2
    np.testing.assert_allclose(spectrum.mean_excitation, (squares.T @ seen / squares.sum(axis=0)[:, None]).T)


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


def test_the_command_prints_a_row_for_every_gate_and_ends_in_the_two_sentences(call, run):
    code, out, _ = call("explain", run, "--device", "cpu")
    assert code == 0
    found = run.read_explanation()
    for gate in found.gates:
        assert any(gate.point in line and f"{gate.between_class_std:.4f}" in line for line in out.splitlines())
    assert out.splitlines()[-4:] == [
        f"wrote:  {run.explanation}",
        f"wrote:  {run.explanation_figure}",
        found.gates_in_words,
        found.modes_in_words,
    ]


@pytest.mark.exhaustive
@pytest.mark.parametrize("attention", ["{}", "{fold: {kind: strip_pooling}}"])
def test_a_network_without_channel_gates_is_told_so_and_what_training_mode_costs(call, tmp_path, attention):
    run = train(tmp_path / "run", f"model.attention={attention}")
    run.explanation_figure.write_bytes(b"of an earlier run")
    code, out, _ = call("explain", run)
    assert code == 0
    assert not run.explanation_figure.is_file()
    assert ("fold: StripPooling does not gate channels" in out) == (attention != "{}")
    lines = out.splitlines()
    assert lines[-3:-1] == [f"wrote:  {run.explanation}", describe_gates([[]])]
    assert lines[-1].startswith("In evaluation mode ")
    assert call("eval", run)[0] == 0
    assert describe_gates([[]]) in run.page.read_text()
    assert call("report", run, "--figures", "svg")[0] == 0


def test_a_classifier_that_is_no_network_is_refused(call, tmp_path):
    run = train(tmp_path / "run", "model={name: svm}")
    code, out, err = call("explain", run)
    assert (code, out) == (2, "")
    assert err == f"hsi-se: {run}: svm has neither gates nor a training mode; explain a network's run\n"


def test_a_folder_without_a_run_is_refused(call, tmp_path):
    code, _, err = call("explain", tmp_path)
    assert code == 2
    assert "not a run folder" in err


@pytest.mark.slow
def test_gates_inside_residual_blocks_are_found_one_by_one(tmp_path):
    run = train(tmp_path / "run", "model={name: se_resnet, attention: {layer1: {kind: se}, layer2: {kind: eca}}}")
    points = [gate.point for gate in explaining.explain(run, session=CPU).gates]
    assert len(points) == 4
    assert [point.split(".")[0] for point in points] == ["layer1", "layer1", "layer2", "layer2"]
