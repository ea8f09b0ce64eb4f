"""Registering blocks and networks: their settings, their names, and mistakes in one line."""

import json
import pickle
import subprocess
import sys
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field
from torch import nn

import hsi_se
from hsi_se.config.experiment import Config
from hsi_se.config.model import Block, Model, SqueezeExcite, Starting, list_blocks, list_models
from hsi_se.config.registry import load_plugin
from hsi_se.config.yaml_file import dump_config, load_config, parse_config
from hsi_se.errors import ConfigError
from tests.conftest import ROOT, TINY
from tests.plugins import SOURCE, forgetting

DEMO = ROOT / "configs" / "demo.yaml"
OWN = "model={name: two_layers, width: 4, attention: {early: {kind: peak}}}"
HYBRID = "model={name: hybridsn, width: 0.125, attention: {fold: {kind: peak, slope: 2}}}"


@pytest.fixture(autouse=True)
def _forgetting():
    with forgetting():
        yield


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "my_blocks.py"
    path.write_text(SOURCE)
    return path


class Module(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels


def test_the_arguments_of_a_factory_are_its_settings(plugin):
    load_plugin(plugin)
    config = load_config(DEMO, [*TINY, OWN])
    assert config.model.model_dump() == {
        "name": "two_layers", "width": 4, "attention": {"early": {"kind": "peak", "slope": 0.5}},
    }  # fmt: skip
    again = parse_config(dump_config(config), path=DEMO)
    assert again == config
    assert again.digest == config.digest
    assert "peak" in [block.kind for block in list_blocks()]
    assert "two_layers" in list_models()
    assert type(config.model).__doc__ == "A convolution and a dense layer."


def test_a_settings_class_gives_limits_and_descriptions():
    class Options(BaseModel):
        radius: int = Field(default=1, ge=1, description="in pixels")

    class Mine(Module):
        def __init__(self, shape: tuple[int, ...], radius: int) -> None:
            super().__init__(shape[0] * radius)

    hsi_se.register_attention("mine", settings=Options, needs_2d=True)(Mine)
    with pytest.raises(ConfigError, match=r"model.attention.fold.radius = 0: must be at least 1$"):
        load_config(DEMO, ["model.attention={fold: {kind: mine, radius: 0}}"])
    with pytest.raises(ConfigError, match=r"fold.radios = 2: unknown setting; did you mean 'radius'\? choose from "):
        load_config(DEMO, ["model.attention={fold: {kind: mine, radios: 2}}"])
    with pytest.raises(ConfigError, match=r"model.attention.conv3d_1.kind = 'mine': needs 2-D features"):
        load_config(DEMO, ["model.attention={conv3d_1: {kind: mine}}"])
    schema = Config.model_json_schema()
    assert schema["$defs"]["Mine"]["properties"]["radius"] == {
        "default": 1, "description": "in pixels", "minimum": 1, "title": "Radius", "type": "integer",
    }  # fmt: skip
    assert schema["$defs"]["Mine"]["properties"]["kind"]["const"] == "mine"


def test_unknown_names_are_answered_with_all_names_and_the_option_for_ones_own(plugin):
    text = DEMO.read_text().replace("name: hybridsn", "name: two_layer")
    with pytest.raises(ConfigError) as before:
        parse_config(text, path=DEMO)
    load_plugin(plugin)
    with pytest.raises(ConfigError) as after:
        parse_config(text, path=DEMO)
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "two_layer" in line)
    start, names = f"{DEMO}:{line}:3: model.name = 'two_layer': ", [*list_models()]
    end = "; for one of your own, add --plugin FILE"
    assert str(before.value) == f"{start}choose from {', '.join(map(repr, names[:-1]))}{end}"
    assert str(after.value) == f"{start}did you mean 'two_layers'? choose from {', '.join(map(repr, names))}{end}"


def _factory(**arguments: Any) -> Any:
    """A function whose signature is written out, for what a class cannot have."""
    names = ", ".join(f"{name}{form}" for name, form in arguments.items())
    space: dict[str, Any] = {"Module": Module}
    exec(f"def make({names}):\n    return Module(3)", space)  # in a module of no name, as in a notebook
    space["make"].__module__ = "cell"
    return space["make"]


@pytest.mark.parametrize(
    ("name", "factory", "problem"),
    [
        ("se", Module, "'se'): is already registered by hsi-se itself; choose another name"),
        ("my block", Module, "'my block'): is not a name; begin with a letter, and use letters, digits and '_'"),
        ("mine", 3, "'mine'): 3 is not a class or function; decorate one that makes a module"),
        ("mine", _factory(size=": int = 3"), "'mine'): has no argument shape or channels, by which it knows"),
        ("mine", _factory(shape="", width="=3"), "'mine'): argument width has no annotation; write width: TYPE"),
        ("mine", _factory(shape="", width=": int"), "'mine'): argument width has no default; write width: TYPE"),
        ("mine", _factory(shape="", kind=": str = ''"), "'mine'): kind cannot be the name of a setting; choose"),
        ("mine", _factory(shape="", copy=": int = 1"), "'mine'): its settings cannot be used (UserWarning: Field name"),
        ("mine", _factory(shape="", w=": int = 'x'"), "'mine'): its settings cannot be used (ValidationError"),
        ("mine", _factory(**{"shape": "", "**rest": ""}), "'mine'): **rest cannot be a setting; name every argument"),
    ],
)  # fmt: skip
def test_what_cannot_be_registered_is_refused_in_one_line(name, factory, problem):
    with pytest.raises(ConfigError) as refused:
        hsi_se.register_attention(name)(factory)
    message = str(refused.value)
    assert message.startswith(f"register_attention({problem}")
    assert "\n" not in message


def test_a_block_of_ours_is_not_replaced_by_way_of_its_settings():
    with pytest.raises(ConfigError, match=r"'se'\): is already registered by hsi-se itself; choose another name"):
        hsi_se.register_attention("se", settings=SqueezeExcite)(Module)


def test_a_setting_that_the_factory_lacks_is_refused():
    class Options(BaseModel):
        depth: int = 1

    with pytest.raises(
        ConfigError, match=r"register_network\('mine'\): the setting depth is not an argument of Module"
    ):
        hsi_se.register_network("mine", settings=Options)(Module)


def test_a_cell_that_runs_again_replaces_its_block_and_another_file_does_not(plugin):
    first, second = _factory(shape="", a=": int = 1"), _factory(shape="", b=": int = 1")
    hsi_se.register_attention("mine")(first)
    hsi_se.register_attention("mine")(second)
    (mine,) = [block for block in list_blocks() if block.kind == "mine"]
    assert mine.model_dump() == {"kind": "mine", "b": 1}
    plugin.write_text(SOURCE.replace('"peak"', '"mine"'))
    with pytest.raises(ConfigError, match=r"line 7: register_attention\('mine'\): is already registered by cell \("):
        load_plugin(plugin)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import torch\n1 / 0\n", "line 2: ZeroDivisionError: division by zero; correct the file"),
        ("def f(:\n", "line 1: SyntaxError: invalid syntax"),
        ("import no_such_module\n", "line 1: ModuleNotFoundError: No module named 'no_such_module'; correct the file"),
        ("raise SystemExit(3)\n", "line 1: SystemExit: 3; correct the file"),
        ("x = 3\n", 'registers nothing; decorate a block with @hsi_se.register_attention("NAME")'),
        (SOURCE.replace('"peak"', '"se"'), "line 7: register_attention('se'): is already registered by hsi-se itself"),
    ],
)
def test_a_file_that_fails_is_one_line_and_may_be_corrected(text, problem, plugin):
    plugin.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_plugin(plugin)
    assert str(refused.value).startswith(f"--plugin {plugin}: {problem}")
    plugin.write_text(SOURCE)
    load_plugin(plugin)
    load_plugin(plugin)  # twice is once
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\); name a Python file"):
        load_plugin(plugin.with_name("none.py"))


def test_the_source_of_a_plugin_is_part_of_the_digest_of_a_config(plugin):
    plain = load_config(DEMO, TINY).digest
    digests = []
    for source in (SOURCE, f"{SOURCE}\n# changed\n"):
        with forgetting():
            plugin.write_text(source)
            load_plugin(plugin)
            digests.append(load_config(DEMO, [*TINY, HYBRID]).digest)
            assert load_config(DEMO, TINY).digest == plain
    assert len({*digests}) == 2


def test_settings_arrive_elsewhere_with_their_plugin(plugin):
    """As on a worker, which has neither the plugin nor its file."""
    with forgetting():
        load_plugin(plugin)
        configs = [load_config(DEMO, [*TINY, each]) for each in (OWN, HYBRID)]
        digests, sent = [config.digest for config in configs], pickle.dumps(configs)
    plugin.unlink()
    assert "two_layers" not in list_models()
    arrived = pickle.loads(sent)
    assert [config.digest for config in arrived] == digests
    assert [type(config.model).__name__ for config in arrived] == ["TwoLayers", "HybridSN"]
    assert "two_layers" in list_models()


def test_the_settings_of_the_packages_own_are_pickled_as_before():
    config = load_config(DEMO, TINY)
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_file_in_the_package_is_all_that_a_block_of_ours_needs_and_a_plugin_leaves_ours_alone(plugin, tmp_path):
    """In a process in which nothing is imported yet, of which the plugin imports some."""
    plugin.write_text(
        f"from hsi_se.attention.eca import EfficientChannel\nfrom hsi_se.models.ssrn import Ssrn\n{SOURCE}"
    )
    (tmp_path / "attention").mkdir()
    (tmp_path / "attention" / "ours.py").write_text(
        "from typing import Literal\n"
        "from torch import nn\n"
        "from hsi_se.attention import AttentionBlock\n"
        "from hsi_se.config.model import Starting\n"
        "from hsi_se.config.registry import register_attention\n"
        "class Settings(Starting):\n"
        '    kind: Literal["ours"]\n'
        "    gain: float = 2.0\n"
        '@register_attention("ours", settings=Settings)\n'
        "class Ours(AttentionBlock):\n"
        "    def __init__(self, channels: int, *, gain: float = 1) -> None:\n"
        "        super().__init__(channels)\n"
        "        self.gain = gain\n"
        "    def forward(self, x):\n"
        "        return self.gain * x\n"
    )
    code = (
        "import json, sys, hsi_se.attention\n"
        f"hsi_se.attention.__path__.append({str(tmp_path / 'attention')!r})\n"
        f"hsi_se.load_plugin({str(plugin)!r})\n"
        f"config = hsi_se.load_config({str(DEMO)!r}, ['model.attention={{fold: {{kind: ours}}}}'])\n"
        "model = hsi_se.build_model(config.model, num_bands=13, patch_size=9, num_classes=3)\n"
        "from hsi_se.config.model import Block, Model\n"
        "entries = [*Block.registry.list_entries().items(), *Model.registry.list_entries().items()]\n"
        "block = model.attention['fold']\n"
        "others = [name for name, entry in entries if entry.plugin is not None]\n"
        "print(json.dumps([type(block).__name__, block.gain, *others]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["Ours", 2.0, "peak", "two_layers"]


@pytest.mark.parametrize("registry", [Block.registry, Model.registry], ids=["blocks", "networks"])
def test_the_packages_own_enter_as_a_plugins_do(registry):
    for name, entry in registry.list_entries().items():
        assert entry.plugin is None
        if name not in ("svm", "random_forest", "extra_trees", "lda"):  # which are fitted
            assert issubclass(entry.factory, nn.Module), name


def test_a_block_class_of_ours_may_be_the_base_of_own_settings():
    class Options(Starting):
        kind: Literal["mine"]
        gain: float = 1

    class Mine(Module):
        def __init__(self, channels: int, gain: float, start: str) -> None:
            super().__init__(channels if start else round(gain))

    hsi_se.register_attention("mine", settings=Options)(Mine)
    config = load_config(DEMO, ["model.attention={fold: {kind: mine, start: identity}}"])
    assert type(config.model.attention["fold"]) is Options
