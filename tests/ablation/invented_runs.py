"""Runs, records and reports of ablations that nobody trained, with chosen accuracies."""

from collections.abc import Sequence

from hsi_se.ablation.file import Ablation
from hsi_se.ablation.record import AblationReport, AblationRun, FailedRun, Part
from hsi_se.ablation.summary import assemble
from hsi_se.evaluation.statistics import McNemarTest
from hsi_se.progress import EpochRecord
from hsi_se.runs.records import RunRecord
from hsi_se.runs.report import Accuracies

Table = dict[str, Sequence[float | None]]  # the OA of each seed by variant; None where the run is missing


def make_run(variant: str, seed: int, accuracy: float, **changes: object) -> AblationRun:
    run = AblationRun(
        seed=seed,
        folder=f"runs/{variant}/seed-{seed}",
        config_digest=variant,
        split_digest=str(seed),
        precision="float32",
        num_test=1000,
        overall_accuracy=accuracy,
        average_accuracy=accuracy,
        kappa=accuracy,
        unsmoothed=None,
        location_floor=Accuracies(overall_accuracy=0.7, average_accuracy=0.7, kappa=0.7),
        spectral_baseline=Accuracies(overall_accuracy=0.6, average_accuracy=0.6, kappa=0.6),
        outcomes={
            name: "better" if accuracy > baseline else "worse"
            for name, baseline in (("location floor", 0.7), ("spectral baseline", 0.6))
            if name == "location floor" or not (variant == "svm" or (variant == "lda" and seed < 4))
        },
        test_patches_with_train_pixels=0.25,
        producers_accuracy={1: accuracy, 2: None},
        parts=(
            Part(num_train=3000, num_test=1000, overall_accuracy=accuracy, location_floor=0.7, spectral_baseline=0.6),
        ),
        training_s=10.0,
        training_us_per_pixel=100.0,
        training_peak_bytes=10**9,
        mapping_s=1.0,
        mapping_us_per_pixel=5.0,
        mapping_peak_bytes=None,
        difference=None,
        mcnemar=None,
    )
    return run.model_copy(update=changes)


def make_record(scene: str, history: Sequence[EpochRecord]) -> RunRecord:
    return RunRecord(
        name="x", seed=0, config_digest="", scene=scene, scene_digest="",
        image_digests=(), split_digest="", data=None,
        start="", start_from_run="",
        device="cpu", precision="float32", notes=("a note of the split",), num_train=9, num_val=0,
        num_parameters=1234567, macs_per_patch=25_182_992, best_epoch=1, history=tuple(history),
        training_s=1.0, versions={},
    )  # fmt: skip


def answer(
    table: Table | dict[str, Table],
    *,
    name: str = "study",
    failed: Sequence[FailedRun] = (),
    curves: dict[str, Sequence[Sequence[float | None]]] | None = None,
    reach: float | None = None,
) -> AblationReport:
    """The report of accuracies, of one scene or by scene; the first variant is the baseline.

    `curves` are validation accuracies of each epoch, by variant and seed; the losses are what is left to 1.
    """
    by_scene: dict[str, Table] = table if isinstance(next(iter(table.values())), dict) else {"": table}
    first = next(iter(by_scene.values()))
    runs = {
        (scene, variant, seed): make_run(variant, seed, accuracy)
        for scene, rows in by_scene.items()
        for variant, accuracies in rows.items()
        for seed, accuracy in enumerate(accuracies)
        if accuracy is not None
    }
    seeds = tuple(range(len(next(iter(first.values())))))
    ablation = Ablation(
        name=name,
        digest="0" * 64,
        baseline=next(iter(first)),
        seeds=seeds,
        threads=1,
        variants={variant: {"model.attention": {}} for variant in first},
        scenes=tuple(by_scene),
        runs=tuple([None] * (len(seeds) * len(first) * len(by_scene) + len(failed))),  # only their number counts here
        reach=reach,
    )
    histories = {
        (scene, variant, seed): [
            EpochRecord(
                epoch=epoch, loss=1.0, learning_rate=1.0, patches_per_second=1.0, elapsed_s=1.0,
                validation_accuracy=accuracy, validation_loss=None if accuracy is None else 1 - accuracy,
            )
            for epoch, accuracy in enumerate((curves or {}).get(variant, [()] * len(seeds))[seed], start=1)
        ]
        for scene, variant, seed in runs
    }  # fmt: skip
    return assemble(
        ablation,
        runs,
        records={key: make_record(key[0] or "Indian_Pines", history) for key, history in histories.items()},
        class_names={scene: {1: "corn | maize", 2: "oats"} for scene in by_scene},
        test_pair=lambda *_: McNemarTest(only_baseline=1, only_variant=7, p=0.0703125),
        failed=failed,
    )


def compare(report: AblationReport, variant: str):
    return next(each for each in report.scenes[0].variants if each.name == variant).comparison
