"""Where an architecture takes adapters, and where its language-modelling head begins: one row per model type."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal

from guidebook.adapters.modules import bare_modules
from guidebook.errors import InputError, nearest

INDEX = r"(\d+)"
NONE: Mapping[str, str] = MappingProxyType({})
Kind = Literal["masked", "causal", "seq2seq"]
Pooling = Literal["mean", "last"]
POOLING: Mapping[Kind, Pooling] = MappingProxyType({"masked": "mean", "causal": "last", "seq2seq": "last"})
"""How `pooling: auto` makes one row of a text. The last state of a decoder is the only one that has read all of it."""


@dataclass(frozen=True)
class Placement:
    r"""The modules of one architecture that guidebook touches, as regular expressions over module names.

    `attention` and `feed_forward` are the modules whose output is the sub-layer's output before the residual
    (Houlsby et al. 2019); their names are inside a layer, so a whole name is `layers` + "." + `attention`.

    Attributes:
        layers: A layer's name from the model's root on; the one group `(\d+)` is the layer's index.
        attention: Attention output inside a layer.
        feed_forward: Feed-forward output inside a layer.
        embeddings: Token embeddings.
        lm_head: The module whose first positional argument is the last hidden state.
        norm: Layer norm after the feed-forward residual inside a layer; empty where layers normalise before.
        block: The feed-forward sub-layer as one module; it reads one input, or a residual as its second where `norm`
            is inside it. Empty where there is no such module.
        kind: How the model is trained on text.
        pooling: What `pooling: auto` means for it.
    """

    layers: str
    attention: str
    feed_forward: str
    embeddings: str
    lm_head: str = "lm_head"
    norm: str = ""
    block: str = ""
    kind: Kind = "causal"
    pooling: Pooling = "last"

    def trained_as(self, kind: Kind, named: Mapping[str, str] = NONE) -> Placement:
        """Return the placement of a model of another kind: a decoder used as an encoder pools the mean, and so on."""
        pooling = self.pooling if kind == self.kind or "pooling" in named else POOLING[kind]
        return replace(self, kind=kind, pooling=pooling)

    def pattern(self, inside: str, indices: Sequence[int] | None = None) -> str:
        """Return the expression over whole module names for `inside` a layer; `indices` None means every layer."""
        chosen = r"\d+" if indices is None else "|".join(str(index) for index in indices)
        return f"{self.layers.replace(INDEX, f'(?:{chosen})')}\\.(?:{inside})"

    def indices(self, model: Any) -> list[int]:
        """Return the indices of the model's layers, ascending.

        Raises:
            InputError: no module is named as the placement says.
        """
        expression = re.compile(f"{self.layers}\\.(?:{self.attention}|{self.feed_forward})")
        found = (expression.fullmatch(name) for name, _ in bare_modules(model))
        indices = sorted({int(match.group(1)) for match in found if match})
        if not indices:
            raise InputError(
                f"No module of {type(model).__name__} is named {expression.pattern!r}. {_BY_HAND} "
                f"Its modules start with {', '.join(name for name, _ in list(model.named_modules())[1:6])}."
            )
        return indices

    def head_of(self, model: Any) -> Any:
        """Return the module whose first positional argument is the last hidden state; see `head_name`."""
        return model.get_submodule(self.head_name(model))

    def head_name(self, model: Any) -> str:
        """Return the name of the module whose first positional argument is the last hidden state.

        Raises:
            InputError: the model has no such module.
        """
        for name, _ in model.named_modules():
            if re.fullmatch(self.lm_head, name):
                return str(name)
        raise InputError(f"{type(model).__name__} has no module {self.lm_head!r}. {_BY_HAND}")


_BY_HAND = (
    "Name the modules by hand, as regular expressions: adapter.modules.layers (a layer, with its index as (\\d+)), "
    "adapter.modules.attention and adapter.modules.feed_forward (inside a layer, the outputs before the residual), "
    "adapter.modules.lm_head (what receives the last hidden state)."
)


def _encoder(attention: str, feed_forward: str, lm_head: str, layers: str = "encoder.layer") -> Placement:
    return Placement(
        layers=_stem(layers),
        attention=re.escape(attention),
        feed_forward=re.escape(feed_forward),
        embeddings=r"(?:.*\.)?(?:embeddings\.(?:word_embeddings|tok_embeddings)|embed_tokens)",
        lm_head=lm_head,
        kind="masked",
        pooling="mean",
    )


def _decoder(attention: str, feed_forward: str, layers: str, embeddings: str = "embed_tokens") -> Placement:
    return Placement(
        layers=_stem(layers),
        attention=re.escape(attention),
        feed_forward=re.escape(feed_forward),
        embeddings=rf"(?:.*\.)?{embeddings}",
    )


def _stem(layers: str) -> str:
    return rf"(?:.*\.)?{re.escape(layers)}\.{INDEX}"


_BERT = replace(_encoder("attention.output.dense", "output.dense", "cls"), norm=r"output\.LayerNorm", block="output")
_ROBERTA = replace(_BERT, lm_head="lm_head")
_LLAMA = replace(_decoder("self_attn.o_proj", "mlp.down_proj", "layers"), block="mlp")
_MIXTURE = replace(_LLAMA, feed_forward="mlp")  # fused experts: the adapter wraps the whole block
_BLOOM = replace(_decoder("self_attention.dense", "mlp.dense_4h_to_h", "h", "word_embeddings"), block="mlp")

PLACEMENTS: Mapping[str, Placement] = MappingProxyType(
    {
        "bert": _BERT,
        "roberta": _ROBERTA,
        "xlm-roberta": _ROBERTA,
        "camembert": _ROBERTA,
        "electra": replace(_BERT, lm_head="generator_predictions"),
        "deberta-v2": replace(_BERT, lm_head="cls|lm_predictions"),
        "albert": replace(
            _encoder("attention.dense", "ffn_output", "predictions"),
            layers=rf"(?:.*\.)?albert_layer_groups\.{INDEX}\.albert_layers\.\d+",
            norm="full_layer_layer_norm",
        ),
        "distilbert": replace(
            _encoder("attention.out_lin", "ffn.lin2", "vocab_transform", "transformer.layer"),
            norm="output_layer_norm",
            block="ffn",
        ),
        "modernbert": replace(_encoder("attn.Wo", "mlp.Wo", "head", "layers"), block="mlp"),
        "mpnet": replace(_ROBERTA, attention=r"attention\.attn\.o"),
        "eurobert": replace(_encoder("self_attn.o_proj", "mlp.down_proj", "lm_head", "layers"), block="mlp"),
        **dict.fromkeys(
            ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "olmo2"), _LLAMA
        ),
        "mixtral": _MIXTURE,
        "qwen3_moe": _MIXTURE,
        "phi": replace(_decoder("self_attn.dense", "mlp.fc2", "layers"), block="mlp"),
        "gpt2": replace(_decoder("attn.c_proj", "mlp.c_proj", "h", "wte"), block="mlp"),
        "gptj": replace(_decoder("attn.out_proj", "mlp.fc_out", "h", "wte"), block="mlp"),
        "gpt_neox": replace(_decoder("attention.dense", "mlp.dense_4h_to_h", "layers", "embed_in"), block="mlp"),
        "opt": _decoder("self_attn.out_proj", "fc2", "layers"),
        "bloom": _BLOOM,
        "falcon": _BLOOM,
        "t5": Placement(
            layers=rf"(?:encoder|decoder)\.block\.{INDEX}\.layer\.\d+",
            attention=r"SelfAttention\.o|EncDecAttention\.o",
            feed_forward=r"DenseReluDense\.wo",
            embeddings="shared",
            block="DenseReluDense",
            kind="seq2seq",
        ),
        "bart": Placement(
            layers=rf"(?:.*\.)?(?:encoder|decoder)\.layers\.{INDEX}",
            attention=r"self_attn\.out_proj|encoder_attn\.out_proj",
            feed_forward="fc2",
            embeddings=r"(?:.*\.)?shared",
            norm="final_layer_norm",
            kind="seq2seq",
        ),
    }
)


def placement_for(model: Any, modules: Mapping[str, str] = NONE) -> Placement:
    """Return the placement of a model, or of a configuration; `modules` overrides the row's entries by name.

    Raises:
        InputError: an architecture without a row whose modules are not named by hand, or an unknown entry.
    """
    model_type = str(getattr(getattr(model, "config", model), "model_type", "unknown"))
    known = [field.name for field in fields(Placement)]
    for name in modules:
        if name not in known:
            raise InputError(f"adapter.modules has no entry {name!r}.{nearest(name, known)} Known: {', '.join(known)}.")
    if modules.get("layers", INDEX).count(INDEX) != 1:
        raise InputError(
            f"adapter.modules.layers is {modules['layers']!r}. Write the layer's index as one {INDEX}, "
            rf"for example .*\.layers\.{INDEX}."
        )
    row = PLACEMENTS.get(model_type)
    if row is not None:
        return replace(row, **modules)  # type: ignore[arg-type]
    if {"layers", "attention", "feed_forward", "lm_head"} <= set(modules):
        return Placement(**{"embeddings": r".*embed\w*", **modules})  # type: ignore[arg-type]
    raise InputError(
        f"Architecture {model_type!r} has no row among {', '.join(sorted(PLACEMENTS))}."
        f"{nearest(model_type, PLACEMENTS)} {_BY_HAND}"
    )


def layers_to_use(spec: str | Sequence[int], count: int, field: str = "adapter.layers") -> list[int]:
    """Return the positions, ascending, that "all", "top 2", "bottom 2", "all but last" or a list picks out of `count`.

    `field` names in errors where the choice stands.

    Raises:
        InputError: not one of these, or a layer that the base does not have.

    >>> layers_to_use("top 2", 6), layers_to_use("all but last", 3), layers_to_use([2, 0], 6)
    ([4, 5], [0, 1], [0, 2])
    """
    everything = list(range(count))
    if not isinstance(spec, str):
        if not spec or not set(spec) <= set(everything):
            raise InputError(f"{field} is {list(spec)}, but the base has layers 0 to {count - 1}.")
        return sorted(set(spec))
    words = spec.split()
    if words == ["all"]:
        return everything
    if words == ["all", "but", "last"] and count > 1:
        return everything[:-1]
    if len(words) == 2 and words[0] in ("top", "bottom") and words[1].isdigit() and 0 < int(words[1]) <= count:
        size = int(words[1])
        return everything[-size:] if words[0] == "top" else everything[:size]
    raise InputError(
        f"{field} is {spec!r}. Use all, all but last, top N, bottom N (N from 1 to {count}), "
        f"or a list of layers from 0 to {count - 1}."
    )
