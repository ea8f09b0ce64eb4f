"""The page of one run: a single HTML file that works offline, made from the run folder alone."""

import base64
import io
import itertools
import json
import shlex
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray
from PIL import Image

from hsi_se.config.scene import InMemoryScene
from hsi_se.config.yaml_file import dump_config
from hsi_se.reports.explorer import FULL, RunFiles
from hsi_se.reports.figures import SIDE_COLOURS
from hsi_se.reports.finding import describe_finding
from hsi_se.reports.run_figures import list_charts
from hsi_se.reports.tables import describe_leakage, render_template
from hsi_se.runs.bundle import Arrays
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import GateExplanation
from hsi_se.sampling.disjoint import Side
from hsi_se.scene.raster import Floats
from hsi_se.scene.scene import UNLABELLED
from hsi_se.scene.wavelengths import split_at_gaps
from hsi_se.system.files import replacing

MOST_BYTES = 24_900_000  # of a page
_MOST_PIXELS = 2_500_000  # of a map that is worth packing
_GEOTIFF = "map/map.tif"  # as `hsi-se map` writes it, seen from the page


def write_page(folder: RunFolder) -> None:
    """Writes `report.html` into the folder of a run; RunError if it is not evaluated, or a file cannot be read.

    Beside a page with thinned maps, it writes the map of every pixel, `map_pixels.png`.
    """
    run, picture = RunFiles.read(folder), folder.map_pixels
    text, every = render_page(run)
    picture.unlink(missing_ok=True)
    if every > 1:
        colours = np.array([run.facts.palette[label] for label in (UNLABELLED, *run.facts.class_ids)], dtype=np.uint8)
        with replacing(picture) as draft:
            Image.fromarray(colours[run.explorer.prediction]).save(draft, format="png")
    folder.write(folder.page, text)


def render_page(run: RunFiles) -> tuple[str, int]:
    """Returns the page, and k if its maps have every k-th row and column."""
    folder, report, explorer = run.folder, run.report, run.explorer
    names = ("truth", "prediction", "top_classes", "top_probabilities", "sides", "picture")
    maps = {name: getattr(explorer, name) for name in names}
    maps |= {name: array for name in ("disagreement", "polygons") if (array := getattr(explorer, name)).size}
    gate = None
    if run.gates is not None and run.explanation is not None and run.explanation.best_gate is not None:
        found, placed = run.gates.mean_excitation, np.zeros(explorer.truth.shape, dtype=np.uint16)
        low, high = float(found.min()), float(found.max())
        placed[tuple(run.gates.pixels.T)] = 1 + np.rint((FULL - 1) * (found - low) / max(high - low, 1e-9))
        maps["gate"], gate = placed, {"point": run.explanation.best_gate.point, "low": low, "high": high}
    own = [name for name in ("disagreement", "gate") if name in maps]
    spectra = {"spectra": explorer.spectra}
    classes, nm, every = run.list_classes(), run.facts.wavelengths_nm, int(explorer.spectra_every[0])
    sides = [
        {"name": name, "colour": colour, "count": int((explorer.sides == side).sum())}
        for side, (name, colour) in SIDE_COLOURS.items()
    ]
    layers = {
        "picture": "Natural colour" if explorer.is_natural_colour[0] else "False colour",
        **{name: name.capitalize() for name in ("prediction", "truth", "errors", "certainty", "split", *own)},
    }
    config = folder.read_config()
    facts = {
        "name": folder.path.name,
        "shape": explorer.truth.shape,
        "classes": [vars(each) for each in classes],
        "sides": sides,
        "layers": list(layers),
        "test": int(Side.TEST),
        "spectra": describe_arrays(spectra),
        "every": every,
        "low": _to_json(explorer.spectra_low),
        "step": _to_json(explorer.spectra_step),
        "means": _to_json(explorer.class_means),
        "positions": run.positions.tolist(),
        "runs": [part.tolist() for part in split_at_gaps(run.positions)],
        "unit": "band" if nm is None else "nm",
        "axes": bytes(explorer.axes).decode().splitlines(),
        "nodes": explorer.nodes.tolist(),
        "folds": len(report.folds),
        "gate": gate,
        "gates": [_list_curves(run, gate) for gate in (run.explanation.gates if run.explanation else ())],
    }
    fill = partial(
        render_template,
        "report.html",
        every=every,
        **vars(run),
        evaluation=report.evaluation,
        finding=describe_finding(report, config),
        settings=config,
        started=next(iter(folder.folds), folder).read_progress()[0].started,
        next_step=report.next_step.replace("CONFIG", shlex.quote(str(folder.config))),
        geotiff=_GEOTIFF if (folder.path / _GEOTIFF).is_file() else None,
        to_map=shlex.join(["hsi-se", "map", str(folder)]),
        classes=classes,
        sides=sides,
        layers=layers,
        pixels=folder.map_pixels.name,
        bands=", ".join(f"{band + 1}" if nm is None else f"{nm[band]:.0f} nm" for band in explorer.picture_bands),
        rows=[*zip(report.per_class, report.split_per_class, explorer.floor_producers.tolist(), strict=True)],
        shares=report.evaluation.shares,
        leakage_sentence=describe_leakage(report.leakage),
        charts={chart.name: (chart.caption, chart.render_svg()) for chart in list_charts(run)},
        draw_gate=_draw_gate,
        config=dump_config(config),
        command=reproduce(run),
        gate=gate,
        spectra=pack(spectra),
    )
    rest = fill(maps="", data=_dump(facts), thinned=1, shown=explorer.truth.shape)
    thinned, described, packed = fit_maps(maps, room=MOST_BYTES - len(rest.encode()))
    shown = described[0]["shape"]
    facts |= {"maps": described, "rows": shown[0], "cols": shown[1], "thinned": thinned}
    return fill(maps=packed, data=_dump(facts), thinned=thinned, shown=shown), thinned


def fit_maps(maps: Arrays, *, room: int) -> tuple[int, list[dict[str, Any]], str]:
    """Returns the least k with which maps `(rows, cols, …)` of every k-th row and column fit in so many letters.

    These maps come second, as they are described and as `pack` writes them. Memory does not grow with the maps.
    """
    rows, cols = next(iter(maps.values())).shape[:2]
    for every in itertools.count(1):
        num_pixels = -(-rows // every) * -(-cols // every)
        if num_pixels <= _MOST_PIXELS:
            thinned = {name: array[::every, ::every] for name, array in maps.items()}
            if len(packed := pack(thinned)) <= room or num_pixels == 1:
                break
    return every, describe_arrays(thinned), packed


def _dump(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def reproduce(run: RunFiles) -> str:
    """Returns the commands, or of arrays in memory the calls, that train and evaluate the run again in a new folder."""
    again = f"{run.folder}-again"
    if isinstance(run.folder.read_config().scene, InMemoryScene):
        train = f"run = hsi_se.train({str(run.folder.config)!r}, scene=scene, out={again!r})"
        return f"{train}\nhsi_se.evaluate(run)"
    given = run.record.data
    data = [] if given is None else ["--data", str(Path(run.record.start) / given)]
    command = ["hsi-se", "train", str(run.folder.config), *data, "--out", again]
    return f"{shlex.join(command)}\n{shlex.join(['hsi-se', 'eval', again])}"


def pack(arrays: Arrays) -> str:
    """Returns 8-bit and 16-bit arrays as text: their bytes, one array after the other, in zlib and base64.

    Of an array of 16-bit numbers all high bytes come first and then all low bytes, which compresses better.
    """
    return base64.b64encode(zlib.compress(b"".join(map(_to_bytes, arrays.values())))).decode("ascii")


def _to_bytes(array: NDArray[Any]) -> bytes:
    if array.dtype.itemsize == 1:
        return array.tobytes()
    return array.astype(">u2").reshape(-1, 1).view(np.uint8).T.tobytes()


def describe_arrays(arrays: Arrays) -> list[dict[str, Any]]:
    return [{"name": name, "shape": array.shape, "width": array.dtype.itemsize} for name, array in arrays.items()]


def _draw_gate(gate: GateExplanation) -> str:
    """Returns the mean excitations as a PNG in an address: one row per class, one column per channel."""
    values = np.array(gate.mean_excitation)  # (C, channels)
    low, high = float(values.min()), float(values.max())
    file = io.BytesIO()
    imsave(file, values, vmin=low, vmax=max(high, low + 1e-6), cmap="viridis", format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _list_curves(run: RunFiles, gate: GateExplanation) -> dict[str, Any] | None:
    """Returns a gate's mean excitation over the bands, a row per explained class; None if there is no spectrum."""
    if gate.spectrum is None or run.explanation is None:
        return None
    places = [run.facts.class_ids.index(each.label) + 1 for each in run.explanation.classes]
    runs = [part.tolist() for part in split_at_gaps(np.array(gate.spectrum.positions))]
    return {**gate.spectrum.model_dump(mode="json"), "classes": places, "runs": runs}


def _to_json(values: Floats) -> list[Any]:
    """Returns nested lists of numbers with six digits, which is more than a picture shows."""
    return [_to_json(row) for row in values] if values.ndim > 1 else [float(f"{v:.6g}") for v in values]
