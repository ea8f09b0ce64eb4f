"""The documentation is complete and right: commands parse, configs validate, links lead somewhere."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
from ruamel.yaml import YAML

import hsi_se
from docs.hooks.commands_page import list_commands as list_all_commands
from docs.hooks.commands_page import render_commands
from docs.hooks.settings_page import render_settings
from hsi_se.ablation.file import AblationSettings
from hsi_se.ablation.study import StudySettings
from hsi_se.cli.main import app
from hsi_se.config.experiment import Config
from hsi_se.config.model import PixelClassifier, list_models
from hsi_se.config.model import list_blocks as list_attention
from hsi_se.config.yaml_file import parse_config
from hsi_se.errors import ConfigError
from hsi_se.scene.catalogue import list_known_scenes
from tests import test_architecture as architecture
from tests.conftest import ROOT
from tests.docs.pages import (
    PAGES,
    find_dead_links,
    list_anchors,
    list_blocks,
    list_commands,
    list_links,
    list_spans,
    read,
)
from tests.scene import test_products

SOURCES = {str(path.relative_to(ROOT)): read(path) for path in PAGES}
GUIDES = {name: text for name, text in SOURCES.items() if name.startswith("docs/")}
README = SOURCES["README.md"]
DEMO = read(ROOT / "configs" / "demo.yaml")
COMMANDS = typer.main.get_command(app)
STARTED = SOURCES["docs/getting-started.md"]


# ---------------------------------------------------------------------------------------- the front page


def test_the_readme_is_short_and_leads_a_newcomer_to_a_map():
    assert len(README.splitlines()) <= 150
    opening = README.split("\n\n")[1].replace("\n", " ")
    assert len(re.findall(r"\.(?: |$)", opening)) == 1, "what it is, in one sentence"
    steps = (
        "make demo",
        "make test",
        "scene inspect",
        "hsi-se info my",
        "hsi-se train my",
        "hsi-se eval runs/my",
        "location floor |",
    )
    places = [README.index(step) for step in steps]
    assert places == sorted(places)


def test_the_readme_has_a_picture_that_loads_fast():
    picture = ROOT / re.search(r"!\[.+\]\((.+)\)", README)[1]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size <= 200_000


def test_the_readme_and_the_citation_file_name_the_version():
    assert "@software{hsi_se," in README
    assert f"version = {{{hsi_se.__version__}}}" in README
    citation = YAML(typ="safe").load(read(ROOT / "CITATION.cff"))
    assert citation["version"] == hsi_se.__version__
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)


def test_the_readme_leads_to_every_guide():
    linked = {link for link in list_links(README) if link.startswith("docs/")}
    assert linked >= {name for name in GUIDES if Path(name).stem not in ("index", "changelog", "contributing")}


@pytest.mark.parametrize("name", SOURCES)
def test_files_that_a_page_names_are_there(name):
    for span in list_spans(SOURCES[name]):
        if re.fullmatch(r"(?:hsi_se|configs|benchmarks|tests|docs)/[a-z\d_/.-]+", span):
            assert (ROOT / span).exists(), span


# ------------------------------------------------------------------------------------------- completeness


def test_every_command_appears_in_a_guide_written_by_hand():
    for words, _ in list_all_commands(COMMANDS):
        assert any(words in text for text in GUIDES.values()), words


def list_missing_options(page: str) -> Iterator[str]:
    """The commands, and the options of each, that have no heading or no line on a page."""
    for words, command in list_all_commands(COMMANDS):
        section = page.partition(f"### `{words}`\n")[2].partition("\n### ")[0]
        if not section:
            yield words
        for parameter in command.params:
            options = (option for option in parameter.opts if option.startswith("--") and option != "--help")
            yield from (f"{words} {option}" for option in options if f"`{option}" not in section)


def test_every_command_and_option_is_on_the_page_of_commands():
    assert list(list_missing_options(render_commands(COMMANDS))) == []


def test_a_missing_command_or_option_is_found():
    page = render_commands(COMMANDS)
    start, heading, rest = page.partition("### `hsi-se train`\n")
    assert list(list_missing_options(start + heading + rest.replace("`--seeds", "`--seed", 1))) == [
        "hsi-se train --seeds"
    ]
    assert "hsi-se train" in list_missing_options(start + rest)


def test_every_command_and_option_has_a_help_text():
    for words, command in list_all_commands(COMMANDS):
        assert command.help, words
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.help, (words, parameter.name)


def test_every_section_of_a_config_is_in_the_example_of_the_settings_page():
    for section in Config.model_fields:
        assert f"\n{section}:" in GUIDES["docs/settings.md"] or section == "name", section


def list_missing_settings(schema: dict[str, Any], page: str) -> Iterator[str]:
    """The settings of a schema that have no line on a page, section by section."""
    starts = {name: f"{{ #settings-{name.lower()} }}\n" for name in schema["$defs"]}
    for key, node in schema["properties"].items():
        if f"## `{key}`\n" not in page:
            yield key
        if "$ref" in node:  # the only form of a section, so its table follows the heading
            starts[node["$ref"].rpartition("/")[2]] = f"## `{key}`\n"
    for name, start in starts.items():
        section = page.partition(start)[2].partition("\n##")[0]
        for key, node in schema["$defs"][name]["properties"].items():
            if "const" not in node and f"| `{key}` |" not in section:
                yield f"{name}.{key}"


def test_every_setting_is_on_the_page_of_settings():
    schema = Config.model_json_schema()
    assert list(list_missing_settings(schema, render_settings(schema))) == []


def test_a_missing_setting_is_found():
    schema = Config.model_json_schema()
    page = render_settings(schema)
    assert list(list_missing_settings(schema, page.replace("| `epochs` |", "| `epoch` |"))) == ["TrainSettings.epochs"]
    assert list(list_missing_settings(schema, page.replace("## `seed`\n", ""))) == ["seed"]


def test_every_network_and_block_is_in_the_guide_to_networks():
    page = GUIDES["docs/networks.md"]
    for name in (*list_models(), *(block.kind for block in list_attention())):
        assert f"\n| `{name}` |" in page, name


def test_every_known_scene_is_in_the_guide_to_data():
    page = GUIDES["docs/your-data.md"]
    for known in list_known_scenes():
        names = ", ".join(f"`{name}`" for name in (known.name, *known.aliases))
        assert f"| {names} |" in page, known.name


def test_every_product_is_in_the_guide_to_data_with_the_test_that_shows_it():
    rows = re.findall(r"^\| .* \| .* \| (`test_.*`) \|$", GUIDES["docs/your-data.md"], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"\[([^]]+)\]", row)}
    assert named == {name.partition(",")[0] for name in test_products.PRODUCTS}
    functions = {name for row in rows for name in re.findall(r"`(test_\w+)", row)}
    assert len(functions) == 4
    assert all(callable(getattr(test_products, name)) for name in functions)


def test_every_public_name_is_in_the_python_api():
    page = GUIDES["docs/api.md"]
    for name in hsi_se.__all__:
        assert f"\n::: hsi_se.{name}\n" in page or name == "__version__", name


def test_the_rooms_and_their_imports_are_those_of_the_architecture():
    ground = {"errors", "progress", "version", "config", "system"}
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", SOURCES["CONTRIBUTING.md"], re.MULTILINE)
    imports = {room: set(re.findall(r"`([\w.]+)`", cell)) for room, cell in rows}
    expected = {room: set(names) - (set() if room in ground else ground) for room, names in architecture.ROOMS.items()}
    assert imports == expected


# --------------------------------------------------------------------------------------- commands and configs


def parse_command(words: list[str]) -> None:
    """Parses a command and runs nothing; raises what the command line raises for a mistake."""
    command, name, arguments = COMMANDS, words[0], words[1:]
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        if name not in command.commands:
            raise ConfigError(f"no such command: {name}")
        command = command.commands[name]
    with contextlib.suppress(typer.Exit):  # --version and --help say what they have to say, and stop
        command.make_context(name, list(arguments))


COMMAND_LINES = [(name, words) for name, text in SOURCES.items() for words in list_commands(text)]


@pytest.mark.parametrize(
    "words", [pytest.param(words, id=f"{name}: {' '.join(words)}") for name, words in COMMAND_LINES]
)
def test_a_command_of_the_docs_parses(words):
    parse_command(words)


@pytest.mark.parametrize(
    "line",
    [
        "hsi-se trian my.yaml",
        "hsi-se scene inspekt cube.hdr",
        "hsi-se train my.yaml --sett a=b",
        "hsi-se train my.yaml your.yaml",
        "hsi-se eval",
    ],
)
def test_a_mistaken_command_is_found(line):
    [words] = list_commands(f"```sh\n{line}  # a comment\n```")
    with pytest.raises((ConfigError, typer.BadParameter.__base__)):
        parse_command(words)


def test_commands_are_read_as_a_shell_reads_them():
    page = '```sh\nhsi-se train a.yaml \\\n  --set "b={c: d}"  # why\nls\n```\n```text\nhsi-se eval\n```\n'
    assert list(list_commands(page)) == [["hsi-se", "train", "a.yaml", "--set", "b={c: d}"]]


def check_config(text: str) -> None:
    """Validates a block as an ablation, as a study, as a config, or as sections that replace those of the demo's."""
    keys = set(YAML(typ="safe").load(text))
    for kind in (AblationSettings, StudySettings):
        if keys <= set(kind.model_fields):
            kind.model_validate(YAML(typ="safe").load(text))
            return
    sections = re.split(r"^(?=\S)", DEMO, flags=re.MULTILINE)
    kept = [part for part in sections if part.partition(":")[0] not in keys]
    parse_config("".join(kept) + text, path=Path("docs.yaml"))


def list_configs(markdown: str) -> list[str]:
    """Blocks of YAML, and spans such as `split: {kind: random, train: 0.1}`; not those with … in them."""
    sections = "|".join(Config.model_fields)
    spans = [span for span in list_spans(markdown) if re.match(rf"(?:{sections}): [^…]+$", span)]
    return [*list_blocks(markdown, "yaml"), *(f"{span}\n" for span in spans)]


@pytest.mark.parametrize(
    "text",
    [pytest.param(text, id=f"{name}: {text[:60]}") for name, page in SOURCES.items() for text in list_configs(page)],
)
def test_a_config_of_the_docs_is_valid(text):
    check_config(text)


@pytest.mark.parametrize(
    "text",
    [
        "train: {epoch: 3}\n",
        "split: {kind: rows, train: 0.1}\n",
        "sead: 0\n",
        "base: a.yaml\nseeds: 0-4\nvariants: {only: {}}\n",
    ],
)
def test_a_mistaken_config_is_found(text):
    assert list_configs(f"```yaml\n{text}```\n") == [text]
    with pytest.raises((ConfigError, ValueError)):
        check_config(text)


# --------------------------------------------------------------------------------------------------- links


ANCHORS = {ROOT / name: list_anchors(text) for name, text in SOURCES.items()}
GENERATED = render_settings(Config.model_json_schema()) + render_commands(COMMANDS)


@pytest.mark.parametrize("name", SOURCES)
def test_links_lead_to_files_and_headings_that_are_there(name):
    anchors = {path: found | list_anchors(GENERATED) for path, found in ANCHORS.items()}
    assert find_dead_links(ROOT / name, SOURCES[name], anchors=anchors) == []


def test_a_dead_link_is_found():
    page = ROOT / "docs" / "page.md"
    text = "[a](maps.md) [b](map.md) [c](maps.md#files) [d](maps.md#filez) [e](https://x.org/y) [f](#none)"
    anchors = {ROOT / "docs" / "maps.md": {"files"}, page: {"some"}}
    assert find_dead_links(page, text, anchors=anchors) == ["map.md", "maps.md#filez", "#none"]


# -------------------------------------------------------------------------------------- the first ten minutes


@pytest.mark.slow
def test_the_commands_of_getting_started_run_in_order(call, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    demo = tmp_path / "configs" / "demo.yaml"
    text = re.sub(r"epochs: \d+", "epochs: 2", demo.read_text())  # the commands are the same
    demo.write_text(re.sub(r"rows: \d+, cols: \d+, bands: \d+", "rows: 48, cols: 48, bands: 32", text))
    monkeypatch.chdir(tmp_path)
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    commands = list(list_commands(STARTED))
    assert len(commands) >= 6
    for words in commands:
        code, _, err = call(*words[1:])
        assert code == 0, (words, err)
    assert len(opened) == sum("--open" in words for words in commands) > 0
    assert (tmp_path / "runs" / "first" / "report.html").is_file()
    assert (tmp_path / "runs" / "first" / "map" / "map.img").is_file()


def test_the_readme_counts_what_can_be_chosen():
    words = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    models = list_models().values()
    classifiers = sum(issubclass(model, PixelClassifier) for model in models)
    counts = (len(models) - classifiers, classifiers, len(list_attention()))
    assert "{} networks, {} classifiers and {} attention blocks".format(*(words[count] for count in counts)) in README
