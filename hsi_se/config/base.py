"""What every section of the config is made of: frozen, closed, mistakes in our own words; seeds as a list."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

from hsi_se.config.nearest import did_you_mean
from hsi_se.errors import ConfigError


class Settings(BaseModel):
    """A section of the config: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: object) -> object:
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    raise mistake(unknown(str(key), "setting", tuple(cls.model_fields)), key=str(key))
        return data


def mistake(message: str, *, key: str | None = None) -> PydanticCustomError:
    """An error of ours; `key` names the entry at fault below the section that raises it."""
    return PydanticCustomError("mistake", "{message}", {"message": message, "key": key})


def unknown(name: str, what: str, choices: Sequence[str]) -> str:
    return f"unknown {what}; {did_you_mean(name, choices)}choose from {', '.join(choices)}"


def parse_seeds(text: str) -> list[int]:
    """Returns the seeds that `0-9`, `0,3,5` or a mixture of the two names, each once, in order.

    Raises:
        ConfigError: the text is no list of seeds.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigError(f"--seeds {text}: write 0-9, or 0,3,5")
        low, high = int(first), int(last if dash else first)
        if high >= 2**63:
            raise ConfigError(f"--seeds {text}: a seed is less than 2⁶³; write 0-9, or 0,3,5")
        if not 0 <= high - low < 1000:
            num_seeds = max(0, high - low + 1)
            raise ConfigError(f"--seeds {text}: {part.strip()} names {num_seeds} seeds; write 0-9, or 0,3,5")
        seeds += [seed for seed in range(low, high + 1) if seed not in seeds]
    return seeds


Seed = Annotated[int, Field(ge=0, lt=2**63)]  # what torch's generators take


def _tag_by_shape(value: object) -> str:
    """Tags have a space, so that no key of a config is mistaken for one."""
    return "a section" if isinstance(value, Mapping | BaseModel) else "a value"
