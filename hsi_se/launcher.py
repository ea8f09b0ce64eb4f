"""What torchrun tells the processes that it starts."""

import os


def is_distributed() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Whether this is the process that writes and prints; the only one is."""
    return not is_distributed() or os.environ.get("RANK", "0") == "0"


def local_rank() -> int:
    """Which GPU of the machine is this process's."""
    return int(os.environ.get("LOCAL_RANK", "0")) if is_distributed() else 0
