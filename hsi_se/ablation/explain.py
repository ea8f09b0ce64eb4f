"""Explains every run of an ablation: what the gates do, and what training mode costs."""

from hsi_se.ablation.record import AblationFolder
from hsi_se.config.model import Network
from hsi_se.errors import RunError
from hsi_se.runs.explanation import Explanation
from hsi_se.system.session import Session
from hsi_se.workflows.explain import explain


def explain_ablation(
    folder: AblationFolder, *, session: Session = Session()
) -> dict[str, dict[int, Explanation]]:
    """Returns the explanation of each finished run of a network, by variant and seed; see `explain`.

    Raises:
        HsiError: as `explain`; or no run is finished, or none is a network's.
    """
    report = folder.read_report()
    found = {}
    for scene in report.scenes:
        for variant in scene.begun:
            name = f"{scene.name}, {variant.name}" if len(report.scenes) > 1 else variant.name
            runs = {run.seed: folder.open_run(run.folder) for run in variant.runs}
            if isinstance(next(iter(runs.values())).read_config().model, Network):
                found[name] = {seed: explain(run, session=session) for seed, run in runs.items()}
            else:
                session.observer.note(f"{name} is not a network and is skipped")
    if not found:
        raise RunError(f"{folder}: no finished run of a network to explain; run `hsi-se ablate` first")
    return found
