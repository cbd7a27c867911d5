"""A base's files: whatever is wrong with them ends in one message that names the file or tensor and the way out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guidebook.errors import InputError, RunError

ADAPTER_FILE = "adapter_config.json"
POINTERS = {  # what version control leaves where a large file was not fetched -> how to fetch it
    b"version https://git-lfs.github.com/": ("a Git LFS pointer", "git lfs pull"),
    b"/annex/objects/": ("a git-annex pointer", "git annex get ."),
    b"../.git/annex/": ("a git-annex pointer", "git annex get ."),
}
POINTER_BYTES = 1024  # no pointer is longer
OPTIONAL_PACKAGES = ("sentencepiece", "google.protobuf", "tiktoken")
"""What transformers needs for tokenizers that are stored without a tokenizer.json."""


def refuse_adapter(base: str, folder: Path) -> None:
    """Refuse a folder with an adapter in it, which transformers would put into the base without a word.

    Raises:
        InputError: there is an adapter_config.json.
    """
    if not (folder / ADAPTER_FILE).is_file():
        return
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{base}: the folder holds an adapter ({ADAPTER_FILE}), not a base. Name the base that the adapter was "
            "trained on, or merge the adapter into it (PEFT: merge_and_unload) and save the result."
        )
    raise InputError(
        f"{folder / ADAPTER_FILE}: an adapter lies beside the weights of the base {base!r}, and transformers would "
        f"load it on top of them. If it is merged already, move {ADAPTER_FILE} and adapter_model.* out of the folder; "
        "if it is not, merge it first (PEFT: merge_and_unload) and save the result in another folder."
    )


@contextmanager
def readable(base: str, path: str) -> Iterator[None]:
    """Turn whatever a library raises while it reads a base's files into one clear error.

    Raises:
        InputError: anything but a lack of memory went wrong.
        RunError: the memory does not suffice.
    """
    try:
        yield
    except InputError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise RunError(
            f"Base {base!r} does not fit into memory ({_brief(error)}). Set base_dtype: bfloat16 or quantise: 4bit, or "
            "choose a smaller base."
        ) from error
    except Exception as error:
        raise InputError(_explained(base, path, error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how Rust libraries fail on files they never expected
            raise
        raise InputError(_explained(base, path, error)) from error


def _explained(base: str, path: str, error: BaseException) -> str:
    """Return what is wrong with a base that could not be loaded, and what to do."""
    start = f"Base {base!r} cannot be loaded: "
    if pointers := _pointers(Path(path)):
        name, (what, command) = pointers[0]
        more = f" ({len(pointers)} files are)" if len(pointers) > 1 else ""
        return f"{start}{name} is {what}, not the file itself{more}. Fetch the files: {command}"
    text = _brief(error)
    lower = str(error).lower()
    if isinstance(error, ImportError) or any(word in lower for word in ("sentencepiece", "tiktoken", "protobuf")):
        missing = [name for name in OPTIONAL_PACKAGES if find_spec(name) is None]
        if any(word in lower for word in ("sentencepiece", "tiktoken", "protobuf")) and missing:
            return (
                f"{start}its tokenizer is stored without a tokenizer.json, and reading it takes packages that are not "
                f"installed. Install them: pip install sentencepiece protobuf (for tiktoken's files: pip install "
                "tiktoken). Or save the tokenizer once as tokenizer.json where they are installed."
            )
        return f"{start}a package is missing ({text}). Install it, or choose a base that does without."
    if "trust_remote_code" in lower:
        return (
            f"{start}its architecture is code of its own, which guidebook does not run. Choose a base whose "
            "architecture is part of transformers."
        )
    return (
        f"{start}{text} Name mini, a folder with a complete model (copy it again if a file is damaged), or a model id "
        "of the Hub that can be reached from here."
    )


def _brief(error: BaseException) -> str:
    """Return an error's first line with its type where the line says little, ending in a full stop."""
    lines = str(error).strip().splitlines()
    text = lines[0].strip()[:300] if lines else ""
    if not isinstance(error, OSError | ValueError | RuntimeError) or len(text) < 15:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _pointers(folder: Path) -> list[tuple[str, tuple[str, str]]]:
    """Return the files of a folder that are pointers of version control: name, and what and how to fetch."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            if not path.is_file() or path.stat().st_size > POINTER_BYTES:
                continue
            start = path.read_bytes()
        except OSError:
            continue
        found += [(path.name, what) for mark, what in POINTERS.items() if start.startswith(mark)]
    return found


def check_complete(base: str, model: nn.Module, report: Mapping[str, Any], needs_lm_head: bool) -> list[str]:
    """Return the names of the head's tensors that are not stored with the base, sorted.

    Args:
        base: As the user named it.
        model: The loaded model.
        report: transformers' account of the loading.
        needs_lm_head: Refuse a base without a stored language-modelling head.

    Raises:
        InputError: tensors are missing or of another shape and would be random, or an adapter was loaded with it.
    """
    loaded: Any = model
    if getattr(loaded, "_hf_peft_config_loaded", False):
        raise InputError(
            f"Base {base!r} has an adapter ({ADAPTER_FILE}) stored beside its weights, which was loaded on top of "
            "them. Merge it (PEFT: merge_and_unload), save the result, and name that."
        )
    if mismatched := sorted(report["mismatched_keys"]):
        name, stored, expected = mismatched[0]
        raise InputError(
            f"Base {base!r}: the tensor {name} is stored with the shape {tuple(stored)}, its config.json expects "
            f"{tuple(expected)} ({len(mismatched)} tensors differ). Copy weights and config.json from one checkpoint."
        )
    missing = sorted(report["missing_keys"])
    inside = [name for name in missing if name.startswith(f"{loaded.base_model_prefix}.")]
    if not missing or not (needs_lm_head or inside):
        return missing
    if prefix := _common_prefix(missing, report["unexpected_keys"]):
        raise InputError(
            f"Base {base!r}: the names of its tensors begin with {prefix!r} ({prefix}{missing[0]}), as a wrapper such "
            "as DistributedDataParallel or torch.compile saves them. Save the model inside the wrapper "
            "(model.module.save_pretrained, model._orig_mod.save_pretrained), or rename the tensors."
        )
    if inside:
        raise InputError(
            f"Base {base!r} is not complete: {inside[0]} and {len(missing) - 1} more tensors of "
            f"{type(model).__name__} are not stored with it and would be random. Copy or save the base again."
        )
    raise InputError(
        f"Base {base!r} has no trained language-modelling head: {missing[0]} and {len(missing) - 1} more tensors "
        f"are not stored with it and would be random. Choose a base saved from {type(model).__name__}."
    )


def _common_prefix(missing: list[str], unexpected: Iterable[str]) -> str:
    """Return what stands before the names of most missing tensors in the file, "" where nothing does.

    >>> _common_prefix(["bert.a", "cls.b"], ["module.bert.a", "module.cls.b"])
    'module.'
    """
    names, found = set(missing), Counter[str]()
    for name in unexpected:
        cut = name.find(".") + 1
        while cut:
            if name[cut:] in names:
                found[name[:cut]] += 1
            cut = name.find(".", cut) + 1
    prefix, count = found.most_common(1)[0] if found else ("", 0)
    return prefix if 2 * count >= len(missing) else ""


@torch.no_grad()
def check_finite(base: str, model: nn.Module, dtype: str) -> None:
    """Refuse weights that are not numbers, or are infinite in the type in which they are held.

    Raises:
        InputError: a tensor holds NaN or infinity.
    """
    parameters = {name for name, _ in model.named_parameters()}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or not tensor.numel():
            continue
        if tensor.element_size() == 1:
            continue  # float8 has no minimum; what is read from it is in other tensors
        low, high = (float(value) for value in tensor.aminmax())  # one pass, no copy; NaN goes through
        if math.isnan(low):
            raise InputError(
                f"Base {base!r}: the tensor {name} holds NaN. Choose another checkpoint, this one is spoilt."
            )
        if name in parameters and (math.isinf(low) or math.isinf(high)):
            held = (
                " as it is held in float16, which ends at 65,504. Set base_dtype: bfloat16, or float32."
                if dtype == "float16"
                else ". Choose another checkpoint, this one is spoilt."
            )
            raise InputError(f"Base {base!r}: the tensor {name} holds infinity{held}")


def check_tokenizer(base: str, tokenizer: Any, model: nn.Module) -> None:
    """Refuse a tokenizer that is not stored with the base, or has more tokens than the base has embeddings.

    Raises:
        InputError: it does not fit.
    """
    loaded: Any = model
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers makes one up where none is stored
        raise InputError(f"Base {base!r} has no tokenizer stored with it. Save the base's own tokenizer beside it.")
    if len(tokenizer) > loaded.get_input_embeddings().weight.shape[0]:
        raise InputError(f"Base {base!r}: its tokenizer has {len(tokenizer)} tokens, more than it has embeddings.")
