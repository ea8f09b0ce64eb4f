"""The rooms of the package, in the order in which a pixel walks through them."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hsi_se"

# A module imports only from rows above its own, or from its own row's folder.
ROOMS = (
    "errors",
    "durable",
    "launcher",
    "locking",
    "settings",
    "config_model",
    "config",
    "config_file",
    "ablation_file",
    "scene",
    "sampling",
    "attention",
    "models",
    "training",
    "mapping",
    "evaluation",
    "explanation",
    "records",
    "map_folder",
    "map_target",
    "series_record",
    "ablation_record",
    "ablation_summary",
    "lifecycle",
    "report",
    "survey",
    "preview",
    "measure",
    "bundled",
    "opened_run",
    "experiment",
    "profiling",
    "cross_scene",
    "explain",
    "series",
    "cluster",
    "ablation",
    "ablation_plan",
    "map_draft",
    "cartography",
    "export",
    "terminal",
    "watch",
    "cli_scene",
    "cli_ablate",
    "cli_report",
    "cli",
    "__main__",
)
TORCH_FREE = (
    "errors",
    "durable",
    "launcher",
    "locking",
    "settings",
    "config_model",
    "config",
    "config_file",
    "ablation_file",
    "scene",
    "evaluation",
    "explanation",
    "records",
    "map_folder",
    "series_record",
    "ablation_record",
    "ablation_summary",
    "lifecycle",
    "report",
    "survey",
    "terminal",
    "watch",
    "cli_scene",
    "cli_ablate",
    "cli_report",
    "cli",
)
API = (
    "hsi_se",
)  # `hsi_se/__init__.py` names the public functions of every room, and may be asked for its version


def room_of(module: str) -> str:
    """`hsi_se.scene.readers` is in the room `scene`."""
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


def find_upward_imports(sources: dict[str, str]) -> list[str]:
    """Every import in `sources` (module name to text) that goes to the importer's row's right."""
    return [
        f"{module} imports {imported}"
        for module, source in sources.items()
        for imported in imports_of(source)
        if imported not in API and ROOMS.index(room_of(imported)) > ROOMS.index(room_of(module))
    ]


def read_package() -> dict[str, str]:
    sources = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name != "hsi_se":
            sources[name] = path.read_text(encoding="utf-8")
    return sources


def test_every_module_is_in_a_room():
    assert {room_of(module) for module in read_package()} == set(ROOMS)


def test_no_module_imports_from_a_room_below_its_own():
    assert find_upward_imports(read_package()) == []


@pytest.mark.parametrize(
    "line",
    [
        "from hsi_se.experiment import train",
        "from hsi_se import experiment",
        "import hsi_se.cli",
        "def late():\n    from hsi_se.records import RunFolder",
    ],
)
def test_an_upward_import_is_found(line):
    assert find_upward_imports({"hsi_se.sampling.splits": line})


def list_loaded(statement: str) -> set[str]:
    """The modules in a new interpreter after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("room", TORCH_FREE)
def test_a_torch_free_room_never_imports_torch(room):
    modules = [module for module in read_package() if room_of(module) == room]
    assert modules
    assert "torch" not in list_loaded("; ".join(f"import {module}" for module in modules))


def test_importing_the_package_imports_nothing_heavy():
    loaded = list_loaded("import hsi_se")
    assert not loaded & {"torch", "numpy", "pydantic"}


def test_libraries_of_single_formats_are_imported_when_such_a_file_is_opened():
    loaded = list_loaded("import hsi_se.scene.readers, hsi_se.cli")
    assert not loaded & {"h5py", "rasterio", "pooch", "scipy.io", "spectral", "matplotlib"}


def test_the_torch_check_can_fail():
    assert "torch" in list_loaded("import hsi_se.models")


def test_help_answers_without_torch():
    loaded = list_loaded(
        "import sys\nfrom hsi_se.cli import app\nsys.argv = ['hsi-se', '--help']\n"
        "try:\n    app()\nexcept SystemExit as stop:\n    assert stop.code == 0"
    )
    assert "typer" in loaded
    assert "torch" not in loaded
