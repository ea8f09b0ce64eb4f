"""What a training step's products are computed in: bfloat16 pays only where the device has it."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch

Precision = Literal["float32", "bfloat16"]

# What torch.cpu.get_capabilities calls products of bfloat16: of x86 processors, then of ARM ones.
_CPU_PRODUCTS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def choose_precision(asked: Literal["float32", "bfloat16", "auto"], device: torch.device) -> Precision:
    """Returns what is asked for; of `auto`, bfloat16 where the device computes with it, else float32."""
    if asked != "auto":
        return asked
    return "bfloat16" if has_bfloat16(device) else "float32"


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 itself; emulation takes ten times as long as float32 and more."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    list_capabilities: Callable[[], Mapping[str, Any]] | None = getattr(torch.cpu, "get_capabilities", None)
    if list_capabilities is None:  # before torch 2.12; to oneDNN AVX-512 alone is enough, where it is no loss
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return any(list_capabilities().get(name) for name in _CPU_PRODUCTS)


def warn_of_emulation(precision: str, device: torch.device) -> tuple[str, ...]:
    """Returns a note where bfloat16 would be emulated, or none."""
    if precision != "bfloat16" or has_bfloat16(device):
        return ()
    return (
        "train.precision = bfloat16: this device emulates it, many times slower than float32; auto would not",
    )
