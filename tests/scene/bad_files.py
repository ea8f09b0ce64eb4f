"""A seeded corpus of damaged files, and the processes that open them under limits of time and memory.

As a script it opens a larger corpus and keeps the counts:

    python -m tests.scene.bad_files 20000
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import scipy.io
import spectral.io.envi

from tests.conftest import CPU
from tests.scene.damaged_content import KINDS, LABEL_KINDS, RUN_FILES, SCENE_KINDS, make_bad

ROOT = Path(__file__).parents[2]
LIMIT_S = 10
LIMIT_BYTES = 2**30
CLI_EVERY = 10  # every tenth file goes through the command line, exit code and all
CONFIG = """\
scene: {synthetic: 0, rows: 24, cols: 24, bands: 16}
split: {kind: random, train: {per_class: 3}, validation: 0.34}
reduction: {kind: pca, components: 13, fit_on: train}
patch: {size: 9}
model: {name: hybridsn, attention: {fold: {kind: se}}}
train: {epochs: 1, batch_size: 8}
"""


# ---------------------------------------------------------------------------------- the originals


def write_originals(folder: Path) -> None:
    """A good file of each kind, from which the bad ones are made."""
    import geopandas
    import h5py
    import rasterio
    import shapely
    from PIL import Image

    rng = np.random.default_rng(0)
    cube = rng.integers(0, 9000, (12, 10, 16)).astype(np.int16)
    labels = np.resize([0, 1, 2, 10], (12, 10)).astype(np.uint8)
    arrays = {"cube": cube, "labels": labels, "note": "text", "nest": {"a": {"b": [1, 2]}}}
    scipy.io.savemat(folder / "mat-v5", arrays, appendmat=False)
    scipy.io.savemat(folder / "mat-v5-packed", arrays, appendmat=False, do_compression=True)
    with h5py.File(folder / "mat-v7.3", "w", userblock_size=512) as file:
        file.create_dataset("cube", data=cube.T, chunks=(4, 4, 4), compression="gzip")
        file.create_dataset("labels", data=labels.T)
        file.create_group("#refs#")["link"] = h5py.SoftLink("/cube")
    with (folder / "mat-v7.3").open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    facts = {
        "wavelength": np.linspace(400, 2500, 16).tolist(), "wavelength units": "nm", "bbl": [1] * 15 + [0],
        "data ignore value": -9999, "reflectance scale factor": 10000,
        "map info": ["UTM", 1, 1, 353128, 3813729, 15, 15, 11, "North", "WGS-84"],
    }  # fmt: skip
    spectral.io.envi.save_image(str(folder / "envi.hdr"), cube, dtype=np.int16, metadata=facts)
    (folder / "envi.hdr").rename(folder / "hdr")
    np.save(folder / "labels.npy", labels)
    np.save(folder / "cube.npy", cube)
    (folder / "npy").write_bytes((folder / "cube.npy").read_bytes())
    with (folder / "npz").open("wb") as stream:
        np.savez_compressed(stream, cube=cube, labels=labels)
    with rasterio.open(
        folder / "tif", "w", driver="GTiff", height=12, width=10, count=16, dtype="int16",
        nodata=-9999, compress="deflate", crs="EPSG:32633", transform=rasterio.Affine(30, 0, 0, 0, -30, 0),
    ) as image:  # fmt: skip
        image.write(np.moveaxis(cube, 2, 0))
        for band in image.indexes:
            image.update_tags(band, wavelength=str(400 + band), wavelength_units="nm", bbl="1")
    rows = [f"{row},{col},{labels[row, col]}" for row, col in np.argwhere(labels > 0)]
    (folder / "csv").write_text("\n".join(["row,col,label", *rows]))
    colours = rng.integers(1, 255, (11, 3), dtype=np.uint8)
    Image.fromarray(colours[labels]).save(folder / "png", format="PNG")
    boxes = [shapely.box(col, -row - 60, col + 60, -row) for row, col in rng.integers(0, 240, (9, 2)).tolist()]
    fields = geopandas.GeoDataFrame({"crop": list("abcabcabc")}, geometry=boxes, crs="EPSG:32633")
    for kind in ("gpkg", "geojson"):
        fields.to_file(folder / f"fields.{kind}")
        (folder / f"fields.{kind}").rename(folder / kind)
    (folder / "yaml").write_text(CONFIG)

    from hsi_se.config.yaml_file import load_config
    from hsi_se.workflows.train import train

    run = train(load_config(folder / "yaml"), out=folder / "run", session=CPU)
    for name in RUN_FILES:
        shutil.copyfile(run.path / name, folder / name)


# --------------------------------------------------------------------------------------- opening


class OutOfTimeError(BaseException):
    """Passes every `except Exception`."""


def open_bad(kind: str, content: bytes, folder: Path) -> None:
    """Does with a file what the commands do; whatever is wrong with it is raised."""
    from hsi_se.config.scene import SceneFiles
    from hsi_se.config.yaml_file import load_config
    from hsi_se.prediction.bundled import build_bundled_model
    from hsi_se.runs.folder import RunFolder
    from hsi_se.scene.loading import load_scene

    path = write_bad(kind, content, folder)
    if kind in LABEL_KINDS:
        load_scene(SceneFiles(cube=str(folder / "tif"), labels=str(path)))
    elif kind in SCENE_KINDS:
        load_scene(SceneFiles(cube=str(path), labels=str(folder / "labels.npy")))
        if kind.startswith("mat") or kind == "npz":
            load_scene(SceneFiles(cube=str(folder / "cube.npy"), labels=str(path), labels_key="labels"))
    elif kind == "yaml":
        load_config(path)
    else:
        run = RunFolder.open(path.parent)
        run.read_record(), run.read_config(), run.read_split()
        build_bundled_model(run.read_bundle())


def call_bad(kind: str, content: bytes, folder: Path) -> None:
    """The same through the command line; its exit code and its one line are checked."""
    from hsi_se.cli.main import main

    path = write_bad(kind, content, folder)
    if kind in RUN_FILES:
        try:
            open_bad(kind, content, folder)
        except Exception:
            arguments = ["eval", str(path.parent)]
        else:
            return  # a whole evaluation would take its seconds over every file that is good enough
    elif kind == "yaml":
        arguments = ["info", str(path)]
    else:
        cube, labels = (folder / "tif", path) if kind in LABEL_KINDS else (path, folder / "labels.npy")
        arguments = ["info", str(folder / "good.yaml"), "--set", f"scene={{cube: {cube}, labels: {labels}}}"]
    sys.argv = ["hsi-se", *arguments]
    with (folder / "out").open("w+") as out, (folder / "err").open("w+") as err:
        sys.stdout, sys.stderr = out, err
        try:
            main()
            code: object = 0
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        err.seek(0)
        said = [line for line in err.read().splitlines() if not line.startswith(("note: ", "mapping "))]
    if code == 2:
        from hsi_se.errors import HsiError

        if len(said) != 1 or not said[0].startswith("hsi-se: "):
            raise AssertionError(f"not one line: {said}")
        raise HsiError(said[0])
    if code != 0:
        raise AssertionError(f"exit code {code}: {said}")


def write_bad(kind: str, content: bytes, folder: Path) -> Path:
    if kind in RUN_FILES:
        path = folder / "run" / kind
    elif kind == "hdr":
        path = folder / "envi.hdr"
    else:
        path = folder / ("bad." + kind.split("-")[0])
    path.write_bytes(content)
    return path


def work(originals: Path, folder: Path) -> None:
    """Reads `kind index` lines and answers each with a line of JSON; lives until one file ends it."""
    shutil.copytree(originals, folder, dirs_exist_ok=True)
    (folder / "good.yaml").write_text(CONFIG)
    import hsi_se.cli.main
    import hsi_se.scene.formats.envi
    import hsi_se.scene.formats.geotiff  # noqa: F401
    from hsi_se.errors import HsiError

    for kind in KINDS:  # what is imported late is imported before memory is limited
        open_bad(kind, (originals / kind).read_bytes(), folder)
    call_bad("npy", (originals / "npy").read_bytes(), folder)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def stop(*_: object) -> None:
        raise OutOfTimeError

    signal.signal(signal.SIGALRM, stop)
    print("ready", flush=True)
    for line in sys.stdin:
        kind, index = line.split()
        content = make_bad(kind, int(index), originals)
        start, said = time.perf_counter(), ""
        signal.alarm(LIMIT_S)
        try:
            (call_bad if int(index) % CLI_EVERY == 0 else open_bad)(kind, content, folder)
            outcome = "loaded"
        except HsiError as error:
            outcome, said = "refused", str(error)
            if not said.strip() or "Traceback" in said:
                outcome = "badly refused"
        except OSError as error:
            outcome, said = ("refused" if error.filename else "traceback"), repr(error)
        except OutOfTimeError:
            outcome = "too slow"
        except BaseException as error:
            outcome, said = "traceback", repr(error)[:500]
        finally:
            signal.alarm(0)
        if kind in RUN_FILES:
            shutil.copyfile(originals / kind, folder / "run" / kind)
        answer = {"kind": kind, "index": int(index), "outcome": outcome, "said": said}
        print(json.dumps({**answer, "seconds": time.perf_counter() - start}), flush=True)


def open_corpus(per_kind: int, folder: Path, *, workers: int = 2) -> Iterator[dict[str, object]]:
    """Yields the outcome of every bad file; one that ends its process is "killed"."""
    (folder / "originals").mkdir()
    write_originals(folder / "originals")
    jobs = [(kind, index) for index in range(per_kind) for kind in KINDS]

    def run_share(worker: int) -> list[dict[str, object]]:
        left, answers, generation = jobs[worker::workers], [], 0
        while left:
            generation += 1
            home = folder / f"worker-{worker}-{generation}"
            command = [sys.executable, "-m", "tests.scene.bad_files", "--work", str(folder / "originals"), str(home)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                cwd=ROOT, env=environment,
            ) as process:  # fmt: skip
                assert process.stdin is not None
                assert process.stdout is not None
                if process.stdout.readline() != "ready\n":
                    raise RuntimeError("a worker does not start")
                while left:
                    try:
                        process.stdin.write("{} {}\n".format(*left[0]))
                        process.stdin.flush()
                        line = process.stdout.readline()
                    except BrokenPipeError:
                        line = ""
                    if not line:
                        kind, index = left.pop(0)
                        answers.append({"kind": kind, "index": index, "outcome": "killed", "said": "", "seconds": 0.0})
                        break
                    answers.append(json.loads(line))
                    left.pop(0)
            shutil.rmtree(home, ignore_errors=True)
        return answers

    with ThreadPoolExecutor(workers) as pool:
        for answers in pool.map(run_share, range(workers)):
            yield from answers


def count_outcomes(answers: list[dict[str, object]]) -> dict[str, dict[str, int]]:
    """How many files of each kind ended how."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for answer in answers:
        counts[str(answer["kind"])][str(answer["outcome"])] += 1
    return {kind: dict(sorted(outcomes.items())) for kind, outcomes in counts.items()}


def main() -> None:
    """Opens a corpus of the size given and writes benchmarks/results/bad_files.json."""
    start = time.perf_counter()
    per_kind = -(-int(sys.argv[1]) // len(KINDS))
    with tempfile.TemporaryDirectory() as folder:
        answers = list(open_corpus(per_kind, Path(folder)))
    counts = count_outcomes(answers)
    seconds = [float(str(answer["seconds"])) for answer in answers]
    result = {
        "command": f"python -m tests.scene.bad_files {sys.argv[1]}",
        "files": len(answers),
        "by_kind": counts,
        "limit_s": LIMIT_S,
        "limit_bytes": LIMIT_BYTES,
        "slowest_file_s": round(max(seconds), 2),
        "corpus_s": round(time.perf_counter() - start, 1),
    }
    for answer in answers:
        if answer["outcome"] not in ("loaded", "refused") or float(str(answer["seconds"])) > LIMIT_S / 4:
            print(answer)
    print(json.dumps(result, indent=2))
    text = json.dumps(result, indent=2) + "\n"
    (ROOT / "benchmarks" / "results" / "bad_files.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "--work":
        work(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
