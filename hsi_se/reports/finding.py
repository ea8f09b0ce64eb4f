"""The finding of a run in one sentence, for the head of its page and the first line in the terminal."""

from hsi_se.config.experiment import Config
from hsi_se.config.model import Network
from hsi_se.reports.tables import render_template
from hsi_se.runs.report import RunReport


def describe_finding(report: RunReport, config: Config) -> str:
    """Returns the accuracy, on what ground, and how it compares with the best pixel classifier and the location floor.

    It never says more than the comparisons of the report show.
    """
    text = render_template(
        "finding.txt",
        report=report,
        split=config.split,
        name="network" if isinstance(config.model, Network) else "classifier",
        leaks=report.leakage.test_patches_with_train_pixels > 0,
    )
    return " ".join(text.split())
