"""How much memory a stage of a causal base takes, told from its configuration before any weight is loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from guidebook.adapters.bases import lm_kind, read_config, resolve_base
from guidebook.adapters.gptj_attention import attention_for
from guidebook.adapters.placement import placement_for
from guidebook.adapters.quantised import saved_quantisation
from guidebook.errors import OutOfMemory
from guidebook.losses.chunked import rows_together
from guidebook.training.settings import Training
from guidebook.training.tap import Tap
from guidebook.training.trainer import chosen_dtype

WORD = 4
"""Bytes of a number in float32: weights in memory, adapters, their gradients and AdamW's two averages."""
LOGITS = 3
"""Copies of a chunk of logits that stand at once: the logits as the head gives them and in float32, their gradient."""


def empty_base(base: str) -> nn.Module | None:
    """Return a causal base with its shapes and without its weights, on the meta device; None for other bases.

    Raises:
        InputError: there is no such base.
    """
    import transformers

    path, _ = resolve_base(base)
    config = read_config(base, path)
    if lm_kind(config) != "causal":
        return None
    with torch.device("meta"):
        model: nn.Module = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation=attention_for(config.model_type)
        )
    return model


def memory_needed(
    base: str, adapter: Any, train: Training, base_dtype: str = "float32", quantise: str | None = None
) -> dict[str, Any] | None:
    """Return what training an adapter on a causal base takes, by part.

    None for other bases, and for architectures whose forward does not run on shapes alone: a dry run then tells the
    memory that it measured.

    Args:
        base: As in a recipe.
        adapter: The adapter's kind.
        train: The recipe's settings of stages.
        base_dtype: Number type of the base's weights.
        quantise: How its linear layers are held, if not in that.

    Returns:
        parameters and trainable_parameters; in megabytes weights (of the base), adapter (a file of it), gradients,
        optimiser, activations (what one part of a step keeps for its gradient, in float32: under bf16 autocast it is
        less), logits (one chunk) and total.
    """
    model = empty_base(base)
    if model is None:
        return None
    quantise = saved_quantisation(base, model.config, quantise) or quantise  # type: ignore[arg-type]
    model.to(getattr(torch, base_dtype)).train()
    rows = max(1, train.tokens_per_batch // train.max_length // train.micro_batches)
    parameters = sum(value.numel() for value in model.parameters())
    weights = _weight_bytes(model, quantise)
    inside = _with_adapter(model, adapter)
    moving = sum(value.numel() for value in inside.parameters() if value.requires_grad)
    placement = placement_for(model, getattr(adapter, "modules", {}))
    try:
        kept = saved_bytes(model, placement.head_of(model), rows, train.max_length)
    except (TypeError, ValueError, RuntimeError, NotImplementedError):
        return None  # Bloom's positions, mixtures of experts: their forward asks for values
    if train.gradient_checkpointing:  # every layer's input, and one layer while its gradient is computed
        text: Any = model.config.get_text_config()  # type: ignore[union-attr, operator]
        size, layers = next(model.parameters()).element_size(), int(text.num_hidden_layers)
        kept = kept // layers + layers * size * rows * train.max_length * int(text.hidden_size)
    whole = weights if adapter.kind == "full" else 0  # a second copy moves, the base's own stays
    if not whole and quantise is None and base_dtype == "float32" and chosen_dtype(train.dtype) == "bfloat16":
        whole = weights // 2  # frozen matrices are held in the type that multiplies, beside the base's own
    vocabulary = int(model.config.vocab_size)  # type: ignore[union-attr, arg-type]
    together = rows_together(vocabulary, "cuda" if torch.cuda.is_available() else "cpu")
    found = {
        "weights": weights + whole,
        "adapter": WORD * moving,
        "gradients": WORD * moving,
        "optimiser": 2 * WORD * moving,
        "activations": kept,
        "logits": LOGITS * WORD * vocabulary * min(together, rows * train.max_length),
    }
    found["total"] = sum(found.values()) - (found["adapter"] if adapter.kind == "full" else 0)
    megabytes = {name: round(value / 1e6, 1) for name, value in found.items()}
    return {"parameters": parameters, "trainable_parameters": moving, "rows": rows, **megabytes}


def _weight_bytes(model: nn.Module, quantise: str | None) -> int:
    """Return the bytes of a base's weights; quantised linear layers inside the layers take 8 or 4 bits a weight."""
    total = sum(value.numel() * value.element_size() for value in model.parameters())
    if quantise is None:
        return total
    bits = 8 if quantise == "8bit" else 4
    head = placement_for(model).head_of(model)
    linear = [m.weight for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    return total - sum(int(weight.numel() * (weight.element_size() - bits / 8)) for weight in linear)


def saved_bytes(model: nn.Module, lm_head: nn.Module, rows: int, width: int) -> int:
    """Return the bytes that a forward pass over (rows, width) tokens keeps for its gradient, parameters not counted.

    Attention keeps query, key, value and its output, as torch's fused kernels do; weights (T, T) are left out.
    """
    device = next(model.parameters()).device
    ids = torch.zeros((rows, width), dtype=torch.long, device=device)
    mask = torch.zeros((rows, 1, width, width), device=device)  # a finished mask: nobody asks for its values
    owned = {value.untyped_storage()._cdata for value in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}
    held: list[Tensor] = []  # a storage that is gone would give its number to another

    def pack(value: Tensor) -> Tensor:
        place = value.untyped_storage()._cdata
        if place not in owned and value.shape[-2:] != (width, width):
            kept[place] = value.untyped_storage().nbytes()
            held.append(value)
        return value

    positions = torch.arange(width, device=device)[None].expand(rows, -1)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    fused = nullcontext() if device.type != "meta" else _fused()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value), Tap(lm_head) as tap, fused:
        tap.run(_without_cache(model), inputs, torch.zeros(0, dtype=torch.long, device=device))
    return sum(kept.values())


def available_megabytes() -> float | None:
    """Return the memory that is free on the device that trains, in megabytes; None where the system does not say.

    On a GPU what other processes hold is not free, what torch holds unused is. On a processor it is what the system
    could give without swapping, and no more than a container's limit leaves.
    """
    if torch.cuda.is_available():
        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return float(torch.cuda.mem_get_info()[0] + unused) / 1e6
    found = [value for value in (_system_bytes(), _container_bytes()) if value is not None]
    return min(found) / 1e6 if found else None


def _system_bytes(place: Path = Path("/proc/meminfo")) -> float | None:
    """Return the bytes that Linux could give to a new process."""
    with suppress(OSError, ValueError, IndexError):
        lines = dict(line.split(":", 1) for line in place.read_text(encoding="utf8").splitlines() if ":" in line)
        if "MemAvailable" in lines:
            return 1024.0 * int(lines["MemAvailable"].split()[0])
    return None


def _container_bytes(place: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the bytes that are left of a container's limit; files that were only read can be dropped and count not."""
    with suppress(OSError, ValueError):
        limit, used = (int((place / name).read_text(encoding="utf8")) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (place / "memory.stat").read_text(encoding="utf8").splitlines())
        return max(0.0, float(limit - used + int(stat.get("inactive_file", 0))))
    return None


def peak_megabytes() -> float:
    """Return the most memory that this process has held so far; the device's, where one trains."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 1e6, 1)
    try:
        import resource
    except ImportError:  # Windows
        import psutil  # type: ignore[import-untyped]  # of accelerate

        return round(float(psutil.Process().memory_info().peak_wset) / 1e6, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


@contextmanager
def memory_explained(stage: str, train: Training) -> Iterator[None]:
    """Turn running out of memory into an error that says which setting to change first, and to what.

    Raises:
        OutOfMemory: there was too little memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        told = "not enough memory" in text or "can't allocate memory" in text
        if not told and not isinstance(error, torch.OutOfMemoryError | MemoryError):
            raise
        parts = 2 * train.micro_batches
        raise OutOfMemory(
            f"Out of memory in stage {stage!r}: {text.strip().splitlines()[0] if text.strip() else 'no memory left'} "
            f"Set train.micro_batches={parts}: each step is cut into {parts} parts, which halves its activations and "
            f"changes no result but for rounding. Then lower train.max_length from {train.max_length}. Finished stages "
            "and the last complete checkpoint are kept; `guidebook adapt --dry-run` says what is needed."
        ) from error


class _Attention(torch.autograd.Function):
    """The shapes of fused attention, and what it keeps."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        context.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(context: Any, slope: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        query, key, value, _ = context.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@contextmanager
def _fused() -> Iterator[None]:
    """Let scaled dot product attention keep what the fused kernels keep: on the meta device torch has none of them."""

    def attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = _Attention.apply(query, key, value)  # type: ignore[no-untyped-call]
        return out

    before = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = before


def _with_adapter(model: nn.Module, adapter: Any) -> nn.Module:
    """Return the model with an adapter of the kind inside, only the adapter trainable; all of it for `full`."""
    config = adapter.peft_config(model, placement_for(model, getattr(adapter, "modules", {})))
    if config is None:
        return model
    from peft import PeftModel

    with torch.device("meta"):
        inside: nn.Module = PeftModel(model, config, adapter_name="domain")
    return inside


def _without_cache(model: nn.Module) -> Callable[..., Any]:
    def run(**inputs: Any) -> Any:
        return model(**inputs, use_cache=False)

    return run
