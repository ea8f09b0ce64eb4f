"""Every run of an ablation is explained, and the sentences are over its seeds."""

import shutil

import numpy as np
import pytest

from hsi_se.ablation.explain import explain_ablation
from hsi_se.ablation.record import AblationExplanation, AblationFolder
from hsi_se.evaluation.statistics import summarize
from hsi_se.runs.explanation import describe_gates, describe_modes
from tests.conftest import CPU


@pytest.fixture(scope="module")
def seeds(over_seeds, tmp_path_factory) -> AblationFolder:
    return AblationFolder(shutil.copytree(over_seeds.path, tmp_path_factory.mktemp("explain") / "seeds"))


def test_the_runs_of_seeds_are_explained_one_by_one_and_together(call, seeds):
    code, out, err = call("explain", seeds, "--device", "cpu")
    assert (code, err) == (0, "")
    found = AblationExplanation.model_validate_json(seeds.explanation.read_bytes())
    (variant,) = found.variants
    assert variant.points == ("fold", "conv2d")
    explanations = [seeds.run_of(variant.name, seed).read_explanation() for seed in (0, 1, 2)]
    for run, each in zip(variant.runs, explanations, strict=True):
        assert run.shares == tuple(gate.between_class_share for gate in each.gates)
        assert run.modes == each.modes
        row = next(line for line in out.splitlines() if line.startswith("│") and f" {run.seed} │" in line)
        assert " and ".join(f"{100 * accuracy:.1f}" for accuracy in run.modes.training) in row
    assert variant.gates_in_words == describe_gates([each.gates for each in explanations])
    assert variant.modes_in_words == describe_modes([each.modes for each in explanations])
    late = summarize([each.gates[1].between_class_share for each in explanations], within=(0, 1))
    assert f"{100 * late.mean:.1f} % [{100 * late.low:.1f}, {100 * late.high:.1f}] at conv2d" in out
    lost = [each.modes.evaluation - np.mean(each.modes.training) for each in explanations]
    assert f"Evaluation minus training mode: {100 * np.mean(lost):+.1f} points".replace("-", "−") in out
    assert out.splitlines()[-1] == f"{variant}: {variant.gates_in_words} {variant.modes_in_words}"
    assert f"wrote:  {seeds.explanation}" in out


def test_variants_without_gates_get_their_sentence_and_others_are_skipped(finished, tmp_path):
    folder = AblationFolder(shutil.copytree(finished.path, tmp_path / "out"))
    config = folder.run_of("none", 0).config
    none, se = explain_ablation(folder, session=CPU).variants
    assert none.points == ()
    assert none.gates_in_words == describe_gates([[]])
    assert "of the only gate, at fold" in se.gates_in_words
    text = config.read_text()
    start = text.index("model:")
    config.write_text(f"{text[:start]}model: {{name: svm}}\n{text[text.index('train:', start) :]}")
    found = explain_ablation(folder, session=CPU)
    assert [variant.name for variant in found.variants] == ["se"]
    assert found.notes == ("none is not a network and is skipped",)


def test_an_ablation_that_has_not_begun_is_refused(call, finished, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(finished.plan, out)
    code, _, err = call("explain", out)
    assert code == 2
    assert err.startswith(f"hsi-se: {out}: no ablation in here")
