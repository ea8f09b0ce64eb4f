#!/usr/bin/env python
"""Collects the results of evaluated runs in one small JSON file, to make the numbers of a table traceable.

    python benchmarks/summarize_runs.py OUT.json --command "hsi-se train …" NAME=RUN[,RUN…] …
    python benchmarks/summarize_runs.py ABLATION.json --settings-of configs/ablations/NAME.yaml

NAME is a variant, whose runs differ only in the seed. The file contains the settings of the first variant
and, for each variant, the settings that differ from them; the accuracies, location floor, spectral
baseline, leakage, training time and digests of each run; and their mean and sample standard deviation. The
script also prints them as a Markdown table. The second form adds the settings of the first run to the
results of an ablation. A test compares the settings in these files with the configs in `configs/`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from hsi_se.ablation.file import load_ablation
from hsi_se.config.experiment import Config
from hsi_se.evaluation.statistics import Summary, summarize
from hsi_se.runs.folder import RunFolder

MEASURES = ("overall_accuracy", "average_accuracy", "kappa")


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings with dotted keys: `{"a": {"b": 1}}` becomes `{"a.b": 1}`."""
    flat = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def list_settings(config: Config, *, only_changed: bool = False) -> dict[str, Any]:
    """Returns the settings that affect a result with dotted keys, but not the seed.

    With `only_changed`, they are those that differ from their default.
    """
    unused = {"name": True, "seed": True, "train": {"checkpoint_every_s"}, "split": {"fold", "repeats"}}
    return flatten(config.model_dump(mode="json", exclude=unused, exclude_defaults=only_changed))


def read_run(run: RunFolder) -> dict[str, Any]:
    """Returns the results of one evaluated run."""
    report, record = run.read_report(), run.read_record()
    return {
        "seed": record.seed,
        **{name: round(getattr(report, name), 6) for name in MEASURES},
        **{
            f"unsmoothed_{name}": round(getattr(report.unsmoothed, name), 6)
            for name in MEASURES
            if report.unsmoothed is not None
        },
        "location_floor": round(report.location_floor.overall_accuracy, 6),
        "spectral_baseline": round(report.spectral_baseline.overall_accuracy, 6),
        "test_patches_with_train_pixels": round(report.leakage.test_patches_with_train_pixels, 6),
        "num_train": report.num_train,
        "num_test": report.num_test,
        "best_epoch": record.best_epoch,
        "training_s": round(record.training_s, 1),
        "device": record.device,
        "precision": record.precision,
        "config_digest": record.config_digest[:16],
        "split_digest": record.split_digest[:16],
    }


def describe(summary: Summary) -> str:
    return f"{100 * summary.mean:.2f} ± {100 * summary.std:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--command", default="", help="the command that produced the first run")
    parser.add_argument("--settings-of", type=Path, help="the ablation file that OUT is the result of")
    parser.add_argument("variants", nargs="*", metavar="NAME=RUN[,RUN…]")
    arguments = parser.parse_intermixed_args()
    if bool(arguments.variants) == bool(arguments.settings_of):
        parser.error("give runs or --settings-of")
    if arguments.settings_of:
        record = json.loads(arguments.out.read_text(encoding="utf-8"))
        record["settings"] = list_settings(load_ablation(arguments.settings_of).runs[0].config)
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        arguments.out.write_text(text + "\n", encoding="utf-8")
        return

    base: dict[str, Any] = {}
    variants = {}
    print("| variant | n | OA | AA | κ × 100 | location floor | spectral baseline | training s |")
    print("|:---|---:|---:|---:|---:|---:|---:|---:|")
    for variant in arguments.variants:
        name, _, paths = variant.partition("=")
        folders = [RunFolder.open(path, pooled=True) for path in paths.split(",")]
        settings = list_settings(folders[0].read_config())
        base = base or settings
        keys = sorted(settings.keys() | base.keys())
        runs = [read_run(folder) for folder in folders]
        means = {
            measure: summarize([run[measure] for run in runs])
            for measure in (*MEASURES, "location_floor", "spectral_baseline", "training_s")
        }
        variants[name] = {
            "differs": {key: settings.get(key) for key in keys if settings.get(key) != base.get(key)},
            "mean": {measure: round(summary.mean, 6) for measure, summary in means.items()},
            "std": {m: round(s.std, 6) if s.n > 1 else None for m, s in means.items()},
            "runs": runs,
        }
        shown = [describe(means[m]) for m in (*MEASURES, "location_floor", "spectral_baseline")]
        print(f"| {name} | {len(runs)} | {' | '.join(shown)} | {means['training_s'].mean:.0f} |")
    result = {"command": arguments.command, "settings": base, "variants": variants}
    arguments.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
