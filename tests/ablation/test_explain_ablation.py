"""Every run of an ablation is explained, and the sentences are over its seeds."""

import shutil

import numpy as np
import pytest

from hsi_se.ablation.record import AblationFolder
from hsi_se.config.yaml_file import dump_config, load_config
from hsi_se.evaluation.statistics import summarize
from hsi_se.reports.tables import describe_gates, describe_modes


@pytest.fixture(scope="module")
def seeds(over_seeds, tmp_path_factory) -> AblationFolder:
    return AblationFolder(shutil.copytree(over_seeds.path, tmp_path_factory.mktemp("explain") / "seeds"))


def test_the_runs_of_seeds_are_explained_one_by_one_and_together(call, seeds):
    code, out, err = call("explain", seeds, "--device", "cpu")
    assert (code, err) == (0, "")
    (name,) = (variant.name for variant in seeds.read_report().scenes[0].variants)
    explanations = [seeds.run_of(name, seed).read_explanation() for seed in (0, 1, 2)]
    for seed, each in enumerate(explanations):
        row = next(line for line in out.splitlines() if line.startswith("│") and f" {seed} │" in line)
        assert " and ".join(f"{100 * accuracy:.1f}" for accuracy in each.modes.training) in row
        for gate in each.gates:
            assert f" {100 * gate.between_class_share:.1f} │" in row
    late = summarize([each.gates[1].between_class_share for each in explanations], within=(0, 1))
    assert f"{100 * late.mean:.1f} % [{100 * late.low:.1f}, {100 * late.high:.1f}] at conv2d" in out
    lost = [each.modes.evaluation - np.mean(each.modes.training) for each in explanations]
    assert f"Evaluation minus training mode: {100 * np.mean(lost):+.1f} points".replace("-", "−") in out
    gates = describe_gates([each.gates for each in explanations])
    assert out.splitlines()[-1] == f"{name}: {gates} {describe_modes([each.modes for each in explanations])}"


def test_variants_without_gates_get_their_sentence_and_others_are_skipped(call, finished, tmp_path):
    folder = AblationFolder(shutil.copytree(finished.path, tmp_path / "out"))
    code, out, _ = call("explain", folder, "--device", "cpu")
    assert code == 0
    none, se = out.splitlines()[-2:]
    assert none.startswith(f"none: {describe_gates([[]])} In evaluation mode")
    assert "of the only gate, at fold" in se
    run = folder.run_of("none", 0)
    record, config = run.read_record(), load_config(run.config, ["model={name: svm}"])
    run.write(run.config, dump_config(config))
    run.write(run.record, record.model_copy(update={"config_digest": config.digest}))
    code, out, err = call("explain", folder, "--device", "cpu")
    assert out.splitlines()[-1].startswith("se: ")
    assert (code, err) == (0, "note: none is not a network and is skipped\n")


def test_an_ablation_that_has_not_begun_is_refused(call, finished, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(finished.plan, out)
    code, _, err = call("explain", out)
    assert code == 2
    assert err.startswith(f"hsi-se: {out}: no ablation in here")
