"""Bases: finding one, loading it under its language-modelling class, and telling two apart."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guidebook.adapters.checkpoint import check_complete, check_finite, check_tokenizer, readable, refuse_adapter
from guidebook.adapters.feasible import check_base
from guidebook.adapters.fetching import ready
from guidebook.adapters.gguf import SUFFIX, converted, gguf_in, quantised_from
from guidebook.adapters.gptj_attention import attention_for
from guidebook.adapters.known import known_base
from guidebook.adapters.placement import PLACEMENTS
from guidebook.adapters.quantised import Quantised, pin, quantisation, saved_quantisation
from guidebook.adapters.quiet import quiet
from guidebook.errors import InputError, nearest

PACKAGED = ("mini", "mini-gptj")


def resolve_base(base: str) -> tuple[str, str]:
    """Return where to load a base from, and the name that loads it anywhere.

    Raises:
        InputError: a folder that does not exist or holds no model, a packaged base that is not installed, a GGUF file
            that cannot be read, or a base with a name that cannot be fetched.
    """
    if base in PACKAGED:
        folder = Path(str(files("guidebook"))) / "bases" / base
        if not (folder / "config.json").is_file():
            raise InputError(f"The packaged base {base!r} is missing from this installation: there is no {folder}.")
        return str(folder), base
    if (row := known_base(base)) is not None:
        place = ready(row)
        return str(converted(file) if (file := gguf_in(place)) is not None else place), base
    path = Path(base).expanduser()
    if (file := gguf_in(path)) is not None:
        return str(converted(file)), base
    if os.path.isdir(path):  # False also for what no file system can name
        refuse_adapter(base, path)
        if not (path / "config.json").is_file():
            raise InputError(f"{base}: the folder holds no model: there is no config.json in it, and no GGUF file.")
        return str(path), base
    if base.startswith((".", "/", "~")) or base.count("/") > 1 or base.lower().endswith(SUFFIX):
        siblings = [item.name for item in path.parent.iterdir()] if os.path.isdir(path.parent) else []
        what = "file" if base.lower().endswith(SUFFIX) else "folder"
        raise InputError(f"{base}: there is no such {what}.{nearest(path.name, siblings)}")
    return base, base


@dataclass(frozen=True)
class Base:
    """A loaded base.

    Attributes:
        model: Under its language-modelling class.
        tokenizer: Its tokenizer.
        config: The configuration as it is stored, dropout included.
        id: The name that loads it anywhere.
        path: Where it was loaded from.
        dtype: Of the weights in memory that are not quantised.
        quantise: How its linear layers are held, if not in `dtype`.
        has_lm_head: Whether its language-modelling head was stored with it; else the head is zero.
        quantised_from: Type of most tensors of the GGUF file it was unpacked from, if it was.
    """

    model: nn.Module
    tokenizer: Any
    config: Any
    id: str
    path: str
    dtype: str = "float32"
    quantise: Quantised | None = None
    has_lm_head: bool = True
    quantised_from: str | None = None

    def config_in_memory(self) -> Any:
        """Return the stored configuration with the dtype and class that the model in memory has."""
        config = copy.deepcopy(self.config)
        config.dtype, config.architectures = self.model.config.dtype, [type(self.model).__name__]
        return config

    def hidden_scale(self) -> float:
        """Return the last hidden state's size relative to what the LM head receives: T5's tied head has it shrunk."""
        config: Any = self.model.config
        return float(config.hidden_size) ** 0.5 if getattr(config, "scale_decoder_outputs", False) else 1.0

    def check_length(self, length: int) -> None:
        """Raise InputError if rows of `length` tokens are longer than the base has positions."""
        positions = positions_of(self.model)
        if positions is not None and length > positions:
            raise InputError(
                f"Rows of {length} tokens are longer than the {positions} positions of {self.id}. Set "
                f"train.max_length and task.max_length to {positions} or less; longer texts are read in pieces."
            )


def positions_of(model: nn.Module) -> int | None:
    """Return how many tokens a model has positions for, None where their number is not limited.

    RoBERTa and its relatives begin to count behind the padding token's id: what lies below it is never used, and the
    embedding says so with its `padding_idx`.
    """
    config: Any = model.config
    sides = ("max_encoder_position_embeddings", "max_decoder_position_embeddings")  # LED's
    known = [getattr(config, name, None) for name in ("max_position_embeddings", *sides)]
    positions = min((value for value in known if isinstance(value, int) and value > 0), default=None)
    for name, module in model.named_modules():
        above, _, own = name.rpartition(".")
        padding = getattr(module, "padding_idx", None)
        counted = own == "position_embeddings" and getattr(model.get_submodule(above), "padding_idx", None) == padding
        if counted and padding is not None and positions is not None:
            return positions - int(padding) - 1
    return positions


def read_config(base: str, path: str) -> Any:
    """Return a base's stored configuration.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    import transformers

    with quiet(), readable(base, path):
        return transformers.AutoConfig.from_pretrained(path)


def load_base(
    base: str,
    dtype: str = "float32",
    dropout: bool = False,
    *,
    quantise: Quantised | None = None,
    needs_lm_head: bool = True,
) -> Base:
    """Return the base under its language-modelling class, on the GPU if there is one.

    Without `dropout`, every dropout probability is zero.

    Without `needs_lm_head`, a head that is not stored with the base (sentence encoders have none) is set to zero: it
    is the same at every load, so the base keeps its fingerprint, and nothing is ever learned through it.

    Raises:
        InputError: no such base, no connection, no language-modelling class or no trained head; a damaged file or
            weights that are not numbers; an unknown dtype or quantisation, one that differs from how the base was
            saved, or bitsandbytes is missing.
    """
    check_base(dtype, quantise)
    number_type: torch.dtype = getattr(torch, dtype)
    path, identity = resolve_base(base)
    stored = read_config(base, path)
    quantise, held = _held(base, stored, quantise, number_type)
    model, report = _read_model(base, path, stored if dropout else _without_dropout(stored), number_type, held)
    with quiet(), readable(base, path):
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    missing = check_complete(base, model, report, needs_lm_head)
    check_tokenizer(base, tokenizer, model)
    if quantise is not None:
        pin(model, number_type)
    elif torch.cuda.is_available():  # bitsandbytes has put a quantised base there by itself
        model.to("cuda")
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False  # nothing is generated here: a cache of keys and values would be for nothing
    with torch.no_grad():
        for name in missing:
            model.get_parameter(name).zero_()
    check_finite(base, model, dtype)
    return Base(model, tokenizer, stored, identity, path, dtype, quantise, not missing, quantised_from(Path(path)))


def _held(
    base: str, stored: Any, quantise: Quantised | None, dtype: torch.dtype
) -> tuple[Quantised | None, dict[str, Any]]:
    """Return how a base is to be held, and the arguments that make transformers hold it so."""
    saved = saved_quantisation(base, stored, quantise)
    if saved is not None:
        return saved, {}  # its configuration says how
    return quantise, {"quantization_config": quantisation(quantise, dtype)} if quantise is not None else {}


def _read_model(
    base: str, path: str, config: Any, dtype: torch.dtype, held: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Return the model under its language-modelling class, and transformers' account of what was missing."""
    import transformers

    classes = {
        "masked": transformers.AutoModelForMaskedLM,
        "causal": transformers.AutoModelForCausalLM,
        "seq2seq": transformers.AutoModelForSeq2SeqLM,
    }
    kind = lm_kind(config)
    with quiet(), readable(base, path):
        model, report = classes[kind].from_pretrained(
            path,
            config=config,
            dtype=dtype,
            attn_implementation=attention_for(config.model_type),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused afterwards, by name
            **held,
        )
    return model, report


def lm_kind(config: Any) -> Any:
    """Return "masked", "causal" or "seq2seq": what the saved class is, else the row's kind, else what there is."""
    from transformers.models.auto import modeling_auto as auto

    offered = {  # encoder-decoders first: transformers offers BART's one class as a masked language model too
        "seq2seq": auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.get(config.model_type),
        "masked": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.get(config.model_type),
        "causal": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type),
    }
    offered = {kind: name for kind, name in offered.items() if name}
    if not offered:
        raise InputError(
            f"Architecture {config.model_type!r} has no language-modelling class in transformers. "
            "Choose an encoder with a masked-LM class, a decoder or an encoder-decoder."
        )
    saved = [kind for kind, name in offered.items() if name in (config.architectures or ())]
    row = PLACEMENTS.get(config.model_type)
    preferred = [row.kind] if row is not None and row.kind in offered else []
    return (saved or preferred or list(offered))[0]


def _without_dropout(stored: Any) -> Any:
    """Return a copy of the configuration with every dropout probability zero."""
    config = copy.deepcopy(stored)
    for key, value in stored.to_dict().items():
        if "drop" in key and isinstance(value, float | int) and not isinstance(value, bool):
            setattr(config, key, 0.0)
    return config
