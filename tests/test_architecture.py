"""The rooms of the package and the arrows between them: what each room may import, and nothing else."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hsi_se"

# The ground, which every room may import besides the rooms that its row names.
GROUND = ("errors", "progress", "version", "config", "system")
DATA = ("scene", "sampling")
ROOMS: Mapping[str, tuple[str, ...]] = {
    "errors": (),
    "progress": (),
    "version": (),
    "config": ("errors",),
    "system": ("errors", "progress", "version"),
    "scene": GROUND,
    "attention": GROUND,
    "sampling": (*GROUND, "scene"),
    "models": (*GROUND, "attention", *DATA),
    "evaluation": (*GROUND, *DATA),
    "training": (*GROUND, "attention", *DATA, "models", "evaluation"),
    "runs": (*GROUND, *DATA, "evaluation"),
    "prediction": (*GROUND, "attention", *DATA, "models", "runs"),
    "reports": (*GROUND, *DATA, "evaluation", "runs", "prediction.class_map"),
    "maps": (*GROUND, *DATA, "evaluation", "runs", "prediction", "reports"),
    "workflows": (
        *GROUND, "attention", *DATA, "models", "evaluation", "training", "runs", "prediction", "reports",
    ),
    "ablation": (*GROUND, *DATA, "models", "evaluation", "training", "runs", "reports", "workflows"),
    "cli": (
        *GROUND, *DATA, "models", "evaluation", "runs", "prediction", "reports", "maps", "workflows",
        "ablation",
    ),
    "api": (
        *GROUND, *DATA, "prediction", "reports", "runs", "maps", "workflows", "ablation", "cli.terminal",
    ),
    "sklearn": (
        *GROUND, *DATA, "evaluation", "training", "runs", "prediction", "workflows",
    ),
    "__main__": ("cli",),
}  # fmt: skip
MOST_FLOORS = 12
MOST_LINES = 450  # of a module of the package or of its tests
TORCH_FREE = ("errors", "progress", "version", "config", "scene", "evaluation", "runs", "reports", "cli")
ALSO_TORCH_FREE = ("prediction.class_map", "ablation.file", "ablation.summary", "ablation.tables")


def room_of(module: str) -> str:
    """`hsi_se.scene.loading` is in the room `scene`."""
    return module.split(".")[1]


def imports_of(source: str) -> Iterator[str]:
    """The modules of the package that a source imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "hsi_se")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "hsi_se":
                yield from (f"hsi_se.{alias.name}" for alias in node.names)
            elif node.module and node.module.startswith("hsi_se."):
                yield node.module


def find_forbidden_imports(sources: dict[str, str]) -> list[str]:
    """Every import in `sources` (module name to text) from a room that the importer's row does not name."""
    return [
        f"{module} imports {imported}"
        for module, source in sources.items()
        for imported in imports_of(source)
        if room_of(imported) != room_of(module)
        and room_of(imported) not in ROOMS[room_of(module)]
        and imported.removeprefix("hsi_se.") not in ROOMS[room_of(module)]
    ]


def read_package() -> dict[str, str]:
    sources = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name != "hsi_se":  # which names the public functions of every room
            sources[name] = path.read_text(encoding="utf-8")
    return sources


def count_floors(rooms: Mapping[str, tuple[str, ...]]) -> int:
    """The rooms on the longest way down; raises CycleError where a way leads back."""
    floors: dict[str, int] = {}
    below = {room: {name.split(".")[0] for name in names} for room, names in rooms.items()}
    for room in TopologicalSorter(below).static_order():
        floors[room] = 1 + max((floors[name] for name in below[room]), default=0)
    return max(floors.values())


def test_every_module_is_in_a_room():
    assert {room_of(module) for module in read_package()} == set(ROOMS)


def test_only_the_ground_lies_at_the_top():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {
        "__init__", "__main__", "api", "errors", "progress", "sklearn", "version",
    }  # fmt: skip


def test_no_module_imports_from_a_room_that_its_own_may_not():
    assert find_forbidden_imports(read_package()) == []


def test_the_rooms_lie_on_few_floors():
    assert count_floors(ROOMS) <= MOST_FLOORS


def test_no_module_imports_itself_by_a_detour():
    sources = read_package()
    arrows = {name: {each for each in imports_of(text) if each in sources} for name, text in sources.items()}
    TopologicalSorter(arrows).prepare()  # raises CycleError


def test_a_module_can_be_read_in_one_sitting():
    modules = [*PACKAGE.rglob("*.py"), *Path(__file__).parent.rglob("*.py")]
    assert [path for path in modules if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES] == []


@pytest.mark.parametrize(
    "line",
    [
        "from hsi_se.workflows.train import train",
        "from hsi_se import workflows",
        "import hsi_se.cli.main",
        "def late():\n    from hsi_se.runs.folder import RunFolder",
        "from hsi_se.models import build_model",
    ],
)
def test_a_forbidden_import_is_found(line):
    assert find_forbidden_imports({"hsi_se.sampling.splits": line})


def test_of_a_room_that_is_named_by_one_module_the_others_are_forbidden():
    assert not find_forbidden_imports({"hsi_se.reports.page": "from hsi_se.prediction.class_map import ClassMap"})
    assert find_forbidden_imports({"hsi_se.reports.page": "from hsi_se.prediction.dense import DenseEngine"})


# ---------------------------------------------------------------------------------- what is loaded when


def list_loaded(*statements: str) -> list[set[str]]:
    """The modules of one new interpreter after each of some statements."""
    code = "import json, sys\n" + "".join(
        f"{statement}\nprint(json.dumps(list(sys.modules)))\n" for statement in statements
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [set(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]


def import_room(room: str) -> str:
    modules = [module for module in read_package() if f"{module}.".startswith(f"hsi_se.{room}.")]
    assert modules, room
    return "; ".join(f"import {module}" for module in modules)


def test_the_package_its_help_and_the_torch_free_rooms_stay_free_of_torch():
    rooms = (*TORCH_FREE, *ALSO_TORCH_FREE)
    show_help = (
        "from hsi_se.cli.main import app; sys.argv = ['hsi-se', '--help']\n"
        "try:\n    app()\nexcept SystemExit as stop:\n    assert stop.code == 0"
    )
    formats = "import hsi_se.scene.loading"
    loaded = list_loaded("import hsi_se", show_help, formats, *map(import_room, rooms))
    package, after_help, after_formats, *after_rooms = loaded
    assert not package & {"torch", "numpy", "pydantic"}
    assert "typer" in after_help
    heavy = {"torch", "h5py", "rasterio", "pooch", "scipy.io", "spectral", "matplotlib", "dask"}
    assert not after_help & (heavy | {"scipy", "sklearn", "numpy", "pydantic"})
    assert not after_formats & heavy
    with_torch = [room for room, modules in zip(rooms, after_rooms, strict=True) if "torch" in modules]
    assert with_torch == []  # the first one is at fault


def test_the_torch_check_can_fail():
    before, after = list_loaded("import hsi_se.models.inference", "import hsi_se.errors")
    assert "torch" in before & after
