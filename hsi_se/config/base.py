"""The base class of all settings, helpers for error messages, and the parser for lists of seeds."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from hsi_se.config.nearest import did_you_mean
from hsi_se.errors import ConfigError


class Settings(BaseModel):
    """A section of the config: immutable, and unknown keys are errors.

    The text below a setting is its description in the JSON schema and on the settings page; the setting that tells
    a section's kind is described by the section's own text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        section = handler.resolve_ref_schema(schema)
        about = section.get("description", "").partition("\n\n")[0]
        for setting in section.get("properties", {}).values():
            if "const" in setting:  # what makes the section of its kind
                setting.setdefault("description", f"{setting['const']}: {about}")
            if "description" in setting:
                setting["description"] = " ".join(setting["description"].split())
        return schema

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: object) -> object:
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    raise mistake(unknown(str(key), "setting", tuple(cls.model_fields)), key=str(key))
        return data

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        self.check_together()
        return self

    def check_together(self) -> None:
        """Refuses settings that are valid each, but not together; raises a `mistake`."""


def mistake(message: str, *, key: str | None = None) -> PydanticCustomError:
    """Returns a validation error with our own message; `key` is the faulty entry, relative to the section."""
    return PydanticCustomError("mistake", "{message}", {"message": message, "key": key})


def unknown(name: str, what: str, choices: Sequence[str]) -> str:
    """Returns the message for an unknown name: the closest match, if any, and all choices."""
    return f"unknown {what}; {did_you_mean(name, choices)}choose from {', '.join(choices)}"


def parse_seeds(text: str) -> list[int]:
    """Returns the seeds in `0-9`, `0,3,5` or `0-4,7`; ConfigError if it is not a list of seeds, or names one twice."""
    seeds: list[int] = []

    def refuse(problem: str) -> ConfigError:
        return ConfigError(f"--seeds {text}: {problem}write 0-9, or 0,3,5")

    for part in map(str.strip, text.split(",")):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise refuse("")
        low, high = int(first), int(last if dash else first)
        if high >= 2**63:
            raise refuse("a seed must be below 2⁶³; ")
        if not 0 <= high - low < 1000:
            raise refuse(f"{part} contains {max(0, high - low + 1)} seeds, and 1 to 1000 are allowed; ")
        if twice := sorted({*seeds}.intersection(range(low, high + 1))):
            raise refuse(f"names seed {twice[0]} twice; ")
        seeds += range(low, high + 1)
    return seeds


Seed = Annotated[int, Field(ge=0, lt=2**63)]  # the range that torch's generators accept
Share = Annotated[float, Field(ge=0, lt=1)]


def _tag_by_shape(value: object) -> str:
    """Returns the union tag of a value or a section; tags contain a space, so no config key equals one."""
    return "a section" if isinstance(value, Mapping | BaseModel) else "a value"
