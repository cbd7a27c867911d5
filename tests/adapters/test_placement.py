"""Every row of the placement table holds on a model of its architecture; layers are picked by words."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch

from guidebook.adapters.bases import Base
from guidebook.adapters.host import Host
from guidebook.adapters.placement import PLACEMENTS, layers_to_use, placement_for
from guidebook.adapters.presets import Houlsby, LoRA
from guidebook.errors import InputError
from tiny import FAMILIES, build_model


def tiny_host(model_type: str) -> Host:
    model = build_model(model_type, 64).eval()
    return Host(Base(model, None, model.config, model_type, model_type))


@pytest.mark.parametrize(
    "model_type",
    [name if name in FAMILIES else pytest.param(name, marks=pytest.mark.slow) for name in PLACEMENTS],
)
@torch.no_grad()
def test_row_holds_on_a_model(model_type):
    host = tiny_host(model_type)
    row, model = host.placement, host.model
    assert row.kind == PLACEMENTS[model_type].kind
    assert len(row.indices(model)) == (1 if model_type == "albert" else 3 if model_type in FAMILIES else 2)
    assert [name for name, _ in model.named_modules() if re.fullmatch(row.embeddings, name)]
    seen = []
    host.lm_head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape))
    ids = torch.arange(3, 17).reshape(2, 7)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if row.kind == "seq2seq":
        inputs["decoder_input_ids"] = ids
    base = model(**inputs).logits
    assert seen == [(2, 7, 16)]
    for kind in (Houlsby(reduction=4), LoRA(rank=2)):
        host.add("a", kind, 0)
        host.activate(["a"])
        assert torch.equal(model(**inputs).logits, base)
        assert host.parameters_of("a") == kind.parameters(model, row) > 0
        for parameter in host._parameters("a").values():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
        assert not torch.allclose(model(**inputs).logits, base, atol=1e-3)
        host.remove("a")
    assert torch.equal(model(**inputs).logits, base)
    host.check_base()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("all", [0, 1, 2, 3]),
        ("top 1", [3]),
        ("top 4", [0, 1, 2, 3]),
        ("bottom 2", [0, 1]),
        ("all but last", [0, 1, 2]),
        ([2, 0, 2], [0, 2]),
        ((1,), [1]),
    ],
)
def test_layers_are_picked_by_words(spec, expected):
    assert layers_to_use(spec, 4) == expected


@pytest.mark.parametrize("spec", ["top", "top 0", "top 5", "top two", "every", "", [4], [-1], []])
def test_layers_that_do_not_exist_are_refused(spec):
    with pytest.raises(InputError, match=r"adapter\.layers is"):
        layers_to_use(spec, 4)


def test_chosen_layers_are_those_that_get_an_adapter():
    host = tiny_host("bert")
    host.add("a", Houlsby(layers="top 1"), 0)
    assert {re.search(r"layer\.(\d)", name).group(1) for name in host._parameters("a")} == {"2"}
    host.remove("a")
    host.add("a", LoRA(layers=(0,)), 0)
    assert {re.search(r"layer\.(\d)", name).group(1) for name in host._parameters("a")} == {"0"}


class Unknown:
    class config:
        model_type = "bertt"


def test_unknown_architecture_says_how_to_name_the_modules():
    with pytest.raises(InputError, match=r"Did you mean 'bert'.*adapter\.modules\.attention"):
        placement_for(Unknown())
    by_hand = {"layers": r"enc\.(\d+)", "attention": "att", "feed_forward": "ff", "lm_head": "top"}
    row = placement_for(Unknown(), by_hand)
    assert re.fullmatch(row.pattern("att|ff", [0, 12]), "enc.12.ff")
    assert not re.fullmatch(row.pattern("att|ff", [0, 12]), "enc.1.ff")


def test_modules_by_hand_are_checked():
    host = tiny_host("bert")
    with pytest.raises(InputError, match=r"no entry 'atention'\. Did you mean 'attention'"):
        placement_for(host.model, {"atention": "x"})
    with pytest.raises(InputError, match="as one"):
        placement_for(host.model, {"layers": "layer"})
    with pytest.raises(InputError, match="No module of BertForMaskedLM is named"):
        host.add("a", Houlsby(modules={"layers": r"block\.(\d+)"}), 0)
    with pytest.raises(InputError, match="has no module 'top'"):
        placement_for(host.model, {"lm_head": "top"}).head_of(host.model)
    host.add("a", Houlsby(modules={"attention": "attention.self.value"}), 0)
    assert any("attention.self.value" in name for name in host._parameters("a"))


def test_recipes_read_kinds_without_torch():
    code = "import sys, guidebook.adapters.presets; print({'torch', 'peft', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_kinds_check_their_values():
    for wrong in ({"reduction": 0.5}, {"width": 0}, {"reduction": None}, {"dropout": 1.0}):
        with pytest.raises(InputError, match=r"adapter"):
            Houlsby(**wrong)
    with pytest.raises(InputError, match=r"adapter\.rank is 0"):
        LoRA(rank=0)


def test_kinds_are_recipes():
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    def read(kind, values):
        kind.__pydantic_config__ = ConfigDict(extra="forbid")
        return TypeAdapter(kind).validate_python(values)

    assert read(Houlsby, {"reduction": 6, "layers": [0, 2]}) == Houlsby(reduction=6.0, layers=(0, 2))
    assert read(LoRA, {"rank": 3}) == LoRA(rank=3)
    for wrong in ({"reductoin": 6}, {"activation": "golu"}, {"learning_rate": 1.0}):
        with pytest.raises(ValidationError):
            read(Houlsby, wrong)
