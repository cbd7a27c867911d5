"""GGUF files as bases: converted once into a folder that transformers loads, kept in the cache by content."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import nn

from guidebook.adapters.checkpoint import check_finite, readable
from guidebook.adapters.gguf_header import Header, read_header
from guidebook.adapters.gguf_rope import stretched
from guidebook.adapters.kept import keep, kept
from guidebook.adapters.quiet import quiet
from guidebook.errors import InputError, require

FACTS = "gguf.json"
"""File of a converted folder that says what it was converted from."""
SUFFIX = ".gguf"
CONVERSION = 1
"""Counted up when a conversion changes, so that folders of older ones are not taken for its own."""
CHUNK = 2**24
HALF = (torch.float16, torch.bfloat16)


def gguf_in(path: Path) -> Path | None:
    """Return the GGUF file that a path stands for: itself, or the only one of a folder without another model.

    Raises:
        InputError: the folder holds several.
    """
    if path.suffix.lower() == SUFFIX and os.path.isfile(path):
        return path
    if not os.path.isdir(path) or (path / "config.json").is_file():
        return None
    found = sorted(item for item in path.iterdir() if item.suffix.lower() == SUFFIX and item.is_file())
    if len(found) > 1:
        names = ", ".join(item.name for item in found)
        raise InputError(f"{path}: the folder holds {len(found)} GGUF files. Name one of them: {names}.")
    return found[0] if found else None


def converted(path: Path) -> Path:
    """Return the folder with a GGUF file's model as transformers loads it; the first call converts it.

    Raises:
        InputError: not a GGUF file of one whole language model, damaged, or of an architecture or type of tensors that
            transformers cannot read; the disk is full.
    """
    key = f"gguf-{content_hash(path)}-{CONVERSION}"
    return kept(key) or keep(key, partial(convert, path))


def quantised_from(folder: Path) -> str | None:
    """Return the type of most tensors of the GGUF file that a folder was converted from; None for other folders."""
    try:
        return str(json.loads((folder / FACTS).read_text(encoding="utf8"))["quantised_from"])
    except FileNotFoundError:
        return None


def content_hash(path: Path) -> str:
    """Return the xxh3_128 of a file's bytes."""
    digest = xxhash.xxh3_128()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    return digest.hexdigest()


def convert(path: Path, folder: Path) -> None:
    """Write a GGUF file's model, tokenizer and chat template into a folder, as transformers saves them.

    Numbers are those of the file, unpacked to float32; they are stored in half precision where that loses nothing.
    """
    require("gguf", "gguf", "A GGUF file as a base")
    path = path.resolve()
    header = read_header(path)
    check_architecture(path, header)
    model, tokenizer = _load(path, header)
    check_finite(str(path), model, "float32")
    check_all_taken(path, header, model)
    if stretch := stretched(path, header, model.config):
        model.config.rope_parameters = {**model.config.rope_parameters, **stretch}
    model.to(_smallest_type(model))
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    facts = {"quantised_from": header.most_common_type, "file": path.name, "architecture": header.architecture}
    (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf8")


def architectures() -> list[str]:
    """Return the architectures whose GGUF files the installed transformers reads, in its own words."""
    from transformers import modeling_gguf_pytorch_utils as legacy

    known = set(legacy.GGUF_SUPPORTED_ARCHITECTURES)
    with contextlib.suppress(ImportError):  # newer readers, since transformers 5.23
        from transformers.integrations.gguf import GGUF_CONFIG_ARCHS

        known |= set(GGUF_CONFIG_ARCHS)
    return sorted(known - {"general", "tokenizer"})


def check_architecture(path: Path, header: Header) -> None:
    """Raise InputError if transformers cannot read GGUF files of the architecture."""
    known = architectures()
    if _bare(header.architecture) not in {_bare(name) for name in known} | {"t5encoder"}:
        raise InputError(
            f"{path}: architecture {header.architecture!r}, which the installed transformers cannot read from GGUF. "
            f"It reads: {', '.join(known)}. Name a folder with the original model instead."
        )


def check_all_taken(path: Path, header: Header, model: nn.Module) -> None:
    """Refuse a file with numbers that transformers left out without a word, such as biases it does not know of.

    Raises:
        InputError: the file holds more numbers than the model.
    """
    counted = sum(prod(tensor.shape) for tensor in header.tensors if not tensor.name.startswith("rope_"))
    held = sum(value.numel() for value in model.parameters())  # tied ones once
    loaded: Any = model
    twice = loaded.get_input_embeddings().weight.numel() if loaded.config.tie_word_embeddings else 0
    if counted not in (held, held + twice) and counted > held:
        raise InputError(
            f"{path}: its tensors hold {counted:,} numbers, the {header.architecture} that transformers makes of it "
            f"{held:,}: some would be left out. Name a folder with the original model instead."
        )


def _bare(name: str) -> str:
    """Return a name without the signs in which llama.cpp and transformers differ: qwen2moe, qwen2_moe."""
    return re.sub(r"[-_]", "", name.lower())


def _load(path: Path, header: Header) -> tuple[Any, Any]:
    """Return the model in float32 and the tokenizer, as transformers reads them from the file."""
    import transformers

    sides = "t5" in header.architecture  # every other architecture of GGUF that transformers reads is a decoder
    chosen = transformers.AutoModelForSeq2SeqLM if sides else transformers.AutoModelForCausalLM
    place, file = str(path.parent), str(path)
    stderr = contextlib.redirect_stderr(io.StringIO())  # its bar is drawn whatever the verbosity
    with quiet(), stderr, readable(file, file):
        model, report = chosen.from_pretrained(place, gguf_file=file, dtype=torch.float32, output_loading_info=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, gguf_file=file)
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            f"{path}: {len(missing)} tensors of the model are not in the file, first {missing[0]!r}. "
            "Get another file of the model."
        )
    model.hf_quantizer = None  # transformers refuses to save a model that it unpacked
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model, tokenizer


def _smallest_type(model: nn.Module) -> torch.dtype:
    """Return the half-precision type that holds every number of a model exactly, else float32."""
    values = [value.detach() for value in model.parameters()]
    for dtype in HALF:
        if all(torch.equal(value.to(dtype).float(), value) for value in values):
            return dtype
    return torch.float32
