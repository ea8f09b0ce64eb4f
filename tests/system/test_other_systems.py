"""The package and its commands need nothing that only Unix has."""

import subprocess
import sys

from hsi_se.runs.folder import RunFolder
from tests.conftest import ROOT, TINY

# Imports every module, then runs the commands, where these two modules of Unix cannot be imported.
WITHOUT = """
import importlib, pkgutil, sys
sys.modules["fcntl"] = sys.modules["resource"] = None
import hsi_se
for module in pkgutil.walk_packages(hsi_se.__path__, "hsi_se."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from hsi_se.cli.main import main
demo, run, out, *options = sys.argv[1:]
train = ["train", demo, *options, "--out", run, "--device", "cpu"]
for arguments in (train, ["eval", run], ["map", run, "--out", out]):
    sys.argv = ["hsi-se", *arguments]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
"""


def test_a_run_is_trained_evaluated_and_mapped_without_fcntl_and_resource(tmp_path):
    options = [part for change in TINY for part in ("--set", change)]
    run, out = tmp_path / "run", tmp_path / "map"
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT, ROOT / "configs" / "demo.yaml", run, out]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert RunFolder.open(run).is_evaluated
    assert (out / "map.img").stat().st_size == 24 * 24
    assert not list(tmp_path.rglob("*.lock"))
