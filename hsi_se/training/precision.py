"""Chooses the precision of training: bfloat16 is faster only on devices that support it natively."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch

Precision = Literal["float32", "bfloat16"]

# Names of bfloat16 products in torch.cpu.get_capabilities: first x86, then ARM.
_CPU_PRODUCTS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def choose_precision(asked: Literal["float32", "bfloat16", "auto"], device: torch.device) -> Precision:
    """Returns `asked`; for `auto`, bfloat16 if the device supports it natively, otherwise float32."""
    if asked != "auto":
        return asked
    return "bfloat16" if has_bfloat16(device) else "float32"


def has_bfloat16(device: torch.device) -> bool:
    """Returns whether a device has native bfloat16 products.

    Where they are emulated, they take at least ten times as long as float32.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    list_capabilities: Callable[[], Mapping[str, Any]] | None = getattr(torch.cpu, "get_capabilities", None)
    # Before torch 2.12, only oneDNN's check exists. It also accepts AVX-512 without native bfloat16
    # products, where bfloat16 is not slower than float32.
    if list_capabilities is None:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return any(list_capabilities().get(name) for name in _CPU_PRODUCTS)


def warn_of_emulation(precision: str, device: torch.device) -> tuple[str, ...]:
    """Returns a note if bfloat16 is emulated on the device, otherwise nothing."""
    if precision != "bfloat16" or has_bfloat16(device):
        return ()
    return (
        "train.precision = bfloat16: bfloat16 is emulated on this device and much slower than float32; "
        "use precision: auto",
    )
