"""Says in messages, to a user of Python, what they say to users of the command line and of configs."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from hsi_se.errors import HsiError, Interrupted
from hsi_se.system.files import read_facts

Words = Literal["arrays", "commands"]


_DATA = "session=Session(data=…)"


def to_python(text: str, words: Words, *, scene: str = "", data: str = _DATA) -> str:
    """Returns a message in the words of Python.

    `scene` is a further argument of functions in it, and `data` the argument that names the folder of scenes.
    """
    for pattern, replacement in read_facts("hsi_se.system", "python_words.toml")[words].items():
        text = re.sub(pattern, replacement.replace("{scene}", scene).replace("{data}", data), text)
    return text


@contextmanager
def speaking_python(words: Words, *, scene: str = "", data: str = _DATA) -> Iterator[None]:
    """Gives the message of an error that the block raises the words of Python."""
    try:
        yield
    except (HsiError, Interrupted) as error:
        error.args = (to_python(str(error), words, scene=scene, data=data),)
        raise
