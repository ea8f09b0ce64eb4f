"""What every section of the config is made of: frozen, closed, and mistakes in our own words."""

import difflib
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


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
    near = difflib.get_close_matches(name, choices, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what}; {hint}choose from {', '.join(choices)}"
