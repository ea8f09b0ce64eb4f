"""Explains every run of an ablation: over its seeds, what the gates do and what training mode costs."""

from hsi_se.ablation.record import AblationExplanation, AblationFolder, ExplainedRun, ExplainedVariant
from hsi_se.config.model import Network
from hsi_se.errors import RunError
from hsi_se.runs.explanation import describe_gates, describe_modes
from hsi_se.system.session import Session
from hsi_se.workflows.explain import explain


def explain_ablation(folder: AblationFolder, *, session: Session = Session()) -> AblationExplanation:
    """Returns what the gates and the modes of each variant do over its seeds, and writes `explain.json`.

    Every finished run of a network is explained in its own folder, too.

    Raises:
        HsiError: as `explain`; or no run is finished, or none is a network's.
    """
    report = folder.read_report()
    has_scenes = len(report.scenes) > 1
    variants, notes = [], []
    for scene in report.scenes:
        for variant in scene.begun:
            runs = [(run.seed, folder.open_run(run.folder)) for run in variant.runs]
            if not isinstance(runs[0][1].read_config().model, Network):
                notes.append(f"{variant.name} is not a network and is skipped")
                continue
            found = [(seed, explain(run, session=session)) for seed, run in runs]
            variants.append(
                ExplainedVariant(
                    scene=scene.name if has_scenes else "",
                    name=variant.name,
                    runs=tuple(
                        ExplainedRun(
                            seed=seed,
                            shares=tuple(gate.between_class_share for gate in each.gates),
                            modes=each.modes,
                        )
                        for seed, each in found
                    ),
                    points=tuple(gate.point for gate in found[0][1].gates),
                    gates_in_words=describe_gates([each.gates for _, each in found]),
                    modes_in_words=describe_modes([each.modes for _, each in found]),
                )
            )
    if not variants:
        raise RunError(f"{folder}: no finished run of a network to explain; run `hsi-se ablate` first")
    explanation = AblationExplanation(variants=tuple(variants), notes=tuple(dict.fromkeys(notes)))
    folder.write(folder.explanation, explanation)
    return explanation
