"""What cannot work together, said before anything is loaded. Imports no torch: recipes are checked with it."""

from __future__ import annotations

from guidebook.errors import InputError, nearest

DTYPES = ("float32", "bfloat16", "float16")
QUANTISED = ("8bit", "4bit")


def check_base(dtype: object, quantise: object, kind: str = "") -> None:
    """Refuse ways of holding a base in memory that do not exist, or that an adapter kind cannot train on.

    Args:
        dtype: One of DTYPES.
        quantise: One of QUANTISED, or None.
        kind: The adapter's kind; of a union, its kinds with a plus between them.

    Raises:
        InputError: an unknown dtype or quantisation; kind full on anything but float32; kind dora on 8 bits.
    """
    if dtype not in DTYPES:
        raise InputError(
            f"base_dtype is {dtype!r}, expected one of {', '.join(DTYPES)}.{nearest(str(dtype), DTYPES)} Correct it."
        )
    if quantise is not None and quantise not in QUANTISED:
        raise InputError(
            f"quantise is {quantise!r}, expected one of {', '.join(QUANTISED)}, or nothing."
            f"{nearest(str(quantise), QUANTISED)} Correct it."
        )
    if kind == "full" and (quantise is not None or dtype != "float32"):
        held = f"quantise: {quantise}" if quantise is not None else f"base_dtype: {dtype}"
        raise InputError(
            f"adapter full moves the base's own weights, and steps are lost in the rounding of {held}. "
            "Leave it out (train.dtype: bfloat16 multiplies in bf16 all the same), or choose another adapter."
        )
    if "dora" in kind.split("+") and quantise == "8bit":
        raise InputError(
            "adapter dora takes the norms of the base's weights, and PEFT spoils 8-bit weights when it reads them on a "
            "processor. Use quantise: 4bit, or adapter lora."
        )


def check_training(dtype: str, quantise: str | None, multiply_in: str, *, compiled: bool) -> None:
    """Refuse settings of training that do not work on a base held so.

    Raises:
        InputError: bf16 autocast on an fp16 base; compiled quantised layers.
    """
    if dtype == "float16" and multiply_in == "bfloat16":
        raise InputError(
            "base_dtype: float16 with train.dtype: bfloat16 would round every weight twice. "
            "Use base_dtype: bfloat16, or train.dtype: float32."
        )
    if compiled and quantise is not None:
        raise InputError(f"train.compile does not work on quantised layers, found quantise: {quantise}. Drop one.")
