"""Bases: finding one, loading it under its language-modelling class, and telling two apart."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from torch import Tensor, nn

from guidebook.adapters.feasible import check_base
from guidebook.adapters.gptj_attention import attention_for
from guidebook.adapters.placement import PLACEMENTS
from guidebook.adapters.quantised import Quantised, pin, quantisation
from guidebook.errors import InputError, nearest

PACKAGED = ("mini", "mini-gptj")
COUNTED_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Families whose positions are counted from the padding token's id on."""


def resolve_base(base: str) -> tuple[str, str]:
    """Return where to load a base from, and the name that loads it anywhere.

    Raises:
        InputError: a folder that does not exist or holds no model, or a packaged base that is not installed.
    """
    if base in PACKAGED:
        folder = Path(str(files("guidebook"))) / "bases" / base
        if not (folder / "config.json").is_file():
            raise InputError(f"The packaged base {base!r} is missing from this installation: there is no {folder}.")
        return str(folder), base
    path = Path(base).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{base}: the folder holds no model, there is no config.json in it.")
        return str(path), base
    if base.startswith((".", "/", "~")) or base.count("/") > 1:
        siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"{base}: there is no such folder.{nearest(path.name, siblings)}")
    return base, base


def fingerprint_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the xxh3_128 of names, dtypes, shapes and bytes, in the order of the names."""
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        raw: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        digest.update(raw)
    return digest.hexdigest()


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
    """

    model: nn.Module
    tokenizer: Any
    config: Any
    id: str
    path: str
    dtype: str = "float32"
    quantise: Quantised | None = None
    has_lm_head: bool = True

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
        config: Any = self.model.config
        positions = getattr(config, "max_position_embeddings", None)
        if config.model_type in COUNTED_FROM_PADDING and positions:
            padding = 1 if config.model_type == "mpnet" else config.pad_token_id
            positions -= padding + 1
        if positions and length > positions:
            raise InputError(
                f"Rows of {length} tokens are longer than the {positions} positions of {self.id}. Set "
                f"train.max_length and task.max_length to {positions} or less; longer texts are read in pieces."
            )


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
        InputError: no such base, no connection, no language-modelling class or no trained head; an unknown dtype or
            quantisation, or bitsandbytes is missing.
    """
    import transformers

    check_base(dtype, quantise)
    number_type: torch.dtype = getattr(torch, dtype)

    classes = {
        "masked": transformers.AutoModelForMaskedLM,
        "causal": transformers.AutoModelForCausalLM,
        "seq2seq": transformers.AutoModelForSeq2SeqLM,
    }
    path, identity = resolve_base(base)
    held = {"quantization_config": quantisation(quantise, number_type)} if quantise is not None else {}
    with _quiet():
        try:
            stored = transformers.AutoConfig.from_pretrained(path)
            config = stored if dropout else _without_dropout(stored)
            model, report = classes[lm_kind(stored)].from_pretrained(
                path,
                config=config,
                dtype=number_type,
                attn_implementation=attention_for(stored.model_type),
                output_loading_info=True,
                **held,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise InputError(
                f"Base {base!r} cannot be loaded: {str(error).strip().splitlines()[0]} "
                f"Name {PACKAGED[0]}, a folder with a model, or a model id of the Hub that can be reached from here."
            ) from error
    missing = sorted(report["missing_keys"])
    if missing and (needs_lm_head or any(name.startswith(f"{model.base_model_prefix}.") for name in missing)):
        raise InputError(
            f"Base {base!r} has no trained language-modelling head: {missing[0]} and {len(missing) - 1} more tensors "
            f"are not stored with it and would be random. Choose a base saved from {type(model).__name__}."
        )
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers makes one up where none is stored
        raise InputError(f"Base {base!r} has no tokenizer stored with it. Save the base's own tokenizer beside it.")
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        raise InputError(f"Base {base!r}: its tokenizer has {len(tokenizer)} tokens, more than it has embeddings.")
    if quantise is not None:
        pin(model, number_type)
    elif torch.cuda.is_available():  # bitsandbytes has put a quantised base there by itself
        model.to("cuda")
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = (
            False  # nothing is generated here: a cache of keys and values would be made for nothing
        )
    with torch.no_grad():
        for name in missing:
            model.get_parameter(name).zero_()
    return Base(model, tokenizer, stored, identity, path, dtype, quantise, not missing)


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from writing to the terminal while it loads; the library never prints."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
