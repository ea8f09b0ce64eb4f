"""`hsi-se quickstart`: from two files to an evaluated run, without a config."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from hsi_se.cli import usage
from hsi_se.errors import ConfigError, RunError


def quickstart(
    cube: Annotated[Path, typer.Argument(metavar="CUBE", help="The file of the image.")],
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="The file of its labels.")],
    overrides: usage.Overrides = None,
    data: usage.DataFolder = None,
    out: Annotated[Path | None, usage.out_option("Folder to write. By default runs/quickstart-CUBE.")] = None,
    device: usage.Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the config only; train nothing.")] = False,
) -> None:
    """Write a config for CUBE and LABELS, train and evaluate it, and print where the report page is.

    The config is beside the folder, as DIR.yaml. Can be interrupted and resumed with the same command.
    """
    from hsi_se.config.yaml_file import load_config
    from hsi_se.system.files import replacing
    from hsi_se.workflows.inspect_scene import suggest_config, survey_files
    from hsi_se.workflows.train import RUNS

    if dry_run and device != "auto":
        raise ConfigError("--device: has no effect with --dry-run; leave one of them out")
    of_scene = [each for each in overrides or [] if each.startswith("scene.")]
    survey = survey_files([cube, labels], of_scene, data=data)
    text = suggest_config(survey, [each for each in overrides or [] if each not in of_scene])
    folder = out or RUNS / f"quickstart-{survey.name}"
    config = folder.with_name(f"{folder.name}.yaml")
    train = shlex.join(["hsi-se", "train", str(config), "--out", str(folder)])
    if config.exists() and config.read_text(encoding="utf-8") != text:
        raise RunError(f"{config}: exists with other settings; choose another folder with --out DIR, or run `{train}`")
    with replacing(config) as draft:
        draft.write_text(text, encoding="utf-8")
    print(f"config: {config}")
    if dry_run:
        print(f"next: {train}")
        return

    from hsi_se.cli import evaluate as evaluation
    from hsi_se.cli import train as training
    from hsi_se.runs.folder import RunFolder

    if RunFolder(folder).is_unfinished:
        training.resume(folder, data=data)
    elif not RunFolder(folder).record.is_file():
        training.train(config, data=data, out=folder, device=device)
    evaluation.evaluate(folder, data=data, device=device)
    settings = load_config(config)
    if len(settings.list_folds()) > 1:
        split = f"split={{kind: all, validation: {settings.split.validation}, folds: {folder}}}"
        words = ["hsi-se", "train", str(config), "--set", split, "--out", f"{folder}-all"]
        print(f"next: {shlex.join(words)}")
