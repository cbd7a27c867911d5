"""The canary: what guidebook relies on in PEFT, tested without a line of guidebook.

When this file fails after an upgrade, PEFT has changed: mend `guidebook.peft` and `guidebook.adapters.tuners`, and this
file with them. When it passes and others fail, the fault is ours. `docs/upstream.md` says why each fact matters.
"""

from __future__ import annotations

import enum
import inspect
from dataclasses import dataclass
from typing import ClassVar

import peft
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import register_peft_method
from torch import nn

MAPPINGS = (PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING)


class CanaryType(str, enum.Enum):  # noqa: UP042  (as PEFT's own)
    CANARY = "CANARY"


@dataclass
class CanaryConfig(PeftConfig):
    target_modules: str | None = None
    exclude_modules: str | None = None

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = CanaryType.CANARY


class CanaryLayer(nn.Module, BaseTunerLayer):
    adapter_layer_names = ("canary_factor",)
    other_param_names = ("notes",)

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer
        self.canary_factor = nn.ModuleDict()
        self.notes = {}
        self.merged_adapters = []
        self._disable_adapters = False
        self._active_adapter = []

    def update_layer(self, name):
        self.canary_factor[name] = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.canary_factor[name].weight, 2.0)
        self.notes[name] = "known"
        self.set_adapter(self.active_adapters, inference_mode=False)

    def forward(self, x):
        x = self.base_layer(x)
        for name in self.active_adapters if not self.disable_adapters else ():
            if name in self.canary_factor:
                x = x * self.canary_factor[name].weight
        return x


class CanaryModel(BaseTuner):
    prefix = "canary_"
    tuner_layer_cls = CanaryLayer
    target_module_mapping: ClassVar[dict] = {}
    calls: ClassVar[list] = []
    swapped: ClassVar[list] = []

    def _create_and_replace(self, peft_config, adapter_name, target, target_name, parent, **rest):
        CanaryModel.calls.append((target_name, rest))
        if not isinstance(target, CanaryLayer):
            target = CanaryLayer(target)
            setattr(parent, target_name, target)
        target.update_layer(adapter_name)

    def _replace_module(self, parent, child_name, new_module, child):
        CanaryModel.swapped.append((child_name, type(new_module), type(child)))
        setattr(parent, child_name, new_module)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)

    def forward(self, x):
        return self.second(self.first(x))


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Inner()
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.block(x))


@pytest.fixture
def canary():
    """PEFT with one more tuner, for the time of a test."""
    torch.manual_seed(0)
    CanaryModel.calls.clear()
    CanaryModel.swapped.clear()
    for mapping, value in zip(MAPPINGS, (CanaryConfig, CanaryModel, CanaryModel.prefix), strict=True):
        mapping[CanaryType.CANARY] = value
    yield Base()
    for mapping in MAPPINGS:
        del mapping[CanaryType.CANARY]


def wrap(base, target, name="one"):
    return get_peft_model(base, CanaryConfig(target_modules=target), adapter_name=name)


def test_peft_has_none_of_our_names_itself():
    assert not {"BOTTLENECK", "INVERTIBLE"} & {kind.value for kind in peft.PeftType}


def test_the_front_door_is_still_closed():
    """Once it opens, `guidebook.peft` should go through it."""
    with pytest.raises(ValueError, match="PEFT type"):
        register_peft_method(name="canary", config_cls=CanaryConfig, model_cls=CanaryModel)


def test_the_side_door_is_open(canary, tmp_path):
    wrap(canary, "last", "default").save_pretrained(tmp_path)
    config = PeftConfig.from_pretrained(str(tmp_path))
    assert isinstance(config, CanaryConfig)
    assert config.peft_type.value == "CANARY"
    loaded = PeftModel.from_pretrained(Base(), str(tmp_path))
    assert isinstance(loaded.base_model, CanaryModel)


def test_how_a_tuner_is_called(canary):
    wrapped = wrap(canary, r"block\.first|last")
    assert CanaryModel.calls == [("first", {"current_key": "block.first"}), ("last", {"current_key": "last"})]
    assert "peft_config" in inspect.signature(BaseTuner._check_target_module_exists).parameters
    assert "key" in inspect.signature(BaseTuner._check_target_module_exists).parameters
    bare = wrapped.unload()
    assert [call[0] for call in CanaryModel.swapped] == ["first", "last"]
    assert isinstance(bare.last, nn.Linear)


def test_nothing_is_injected_inside_of_a_wrapped_module(canary):
    wrapped = wrap(canary, "block")
    with pytest.raises(ValueError, match="not found in the base model"):
        wrapped.add_adapter("two", CanaryConfig(target_modules=r"block\.base_layer\.first"))


def test_names_in_the_file(canary):
    state = get_peft_model_state_dict(wrap(canary, r"block\.first"), adapter_name="one")
    assert list(state) == ["base_model.model.block.first.canary_factor.weight"]
    for config, expected in (
        (LoraConfig(target_modules="last", use_dora=True), {"lora_A.weight", "lora_B.weight", "lora_magnitude_vector"}),
        (IA3Config(target_modules="last", feedforward_modules=""), {"ia3_l"}),
    ):
        state = get_peft_model_state_dict(get_peft_model(Base(), config))
        assert {name.removeprefix("base_model.model.last.") for name in state} == expected


def test_two_tuners_stand_side_by_side_once_the_models_note_is_taken_off(canary):
    first = wrap(canary, "last")
    assert canary.peft_config is first.base_model.peft_config
    del canary.peft_config
    second = PeftModel(canary, LoraConfig(target_modules=r"block\.first", r=2), adapter_name="one")
    del canary.peft_config
    assert set(first.peft_config) == set(second.peft_config) == {"one"}
    assert first.base_model.peft_config["one"] is not second.base_model.peft_config["one"]
    second.add_adapter("two", LoraConfig(target_modules=r"block\.first", r=2))
    assert set(first.peft_config) == {"one"}
    second.delete_adapter("two")
    assert "one" in canary.last.canary_factor
    assert "one" in canary.block.first.lora_A


def test_what_a_layer_offers(canary):
    wrapped = wrap(canary, "last")
    wrapped.add_adapter("two", CanaryConfig(target_modules="last"))
    layer = canary.last
    assert set(layer._all_available_adapter_names()) == {"one", "two"}
    layer.set_adapter(["one", "two"], inference_mode=True)
    assert not any(parameter.requires_grad for parameter in layer.canary_factor.parameters())
    layer.set_requires_grad(["two"], requires_grad=True)
    assert [p.requires_grad for p in (layer.canary_factor["one"].weight, layer.canary_factor["two"].weight)] == [
        False,
        True,
    ]
    x = torch.randn(2, 4)
    assert torch.equal(layer(x), layer.get_base_layer()(x) * 2 * 2)
    layer.enable_adapters(False)
    assert torch.equal(layer(x), layer.get_base_layer()(x))
    wrapped.delete_adapter("two")
    assert list(layer.canary_factor) == list(layer.notes) == ["one"]


def test_what_peft_makes_trainable(canary):
    """Why the host sets gradients again after every injection and every `set_adapter`."""
    wrapped = wrap(canary, "last")
    wrapped.add_adapter("two", CanaryConfig(target_modules="last"))
    wrapped.base_model.set_adapter(["one", "two"])
    assert all(parameter.requires_grad for parameter in canary.last.canary_factor.parameters())
    assert not any(parameter.requires_grad for parameter in canary.block.parameters())


def test_rows_with_adapters_of_their_own():
    """LoRA has them, IA3 drops the names without a word, DoRA refuses: why kinds are asked first."""
    x = torch.randn(2, 4)
    model = get_peft_model(
        Base(), LoraConfig(target_modules="last", init_lora_weights=False), adapter_name="one"
    ).eval()
    mixed = model(x, adapter_names=["one", "__base__"])
    torch.testing.assert_close(mixed[0], model(x)[0])
    with model.disable_adapter():
        torch.testing.assert_close(mixed[1], model(x)[1])
    with pytest.raises(ValueError, match="DoRA"):
        get_peft_model(Base(), LoraConfig(target_modules="last", use_dora=True)).eval()(
            x, adapter_names=["default"] * 2
        )
    scaled = get_peft_model(
        Base(), IA3Config(target_modules="last", feedforward_modules="", init_ia3_weights=False)
    ).eval()
    assert torch.equal(scaled(x, adapter_names=["default", "__base__"]), scaled(x))


def test_adapters_of_a_low_precision_base_are_fp32():
    model = get_peft_model(Base().to(torch.bfloat16), LoraConfig(target_modules="last"))
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}


def test_dora_starts_as_the_base():
    x = torch.randn(2, 4)
    base = Base()
    before = base(x)
    torch.testing.assert_close(get_peft_model(base, LoraConfig(target_modules="last", use_dora=True)).eval()(x), before)


def test_what_a_lora_layer_holds_and_computes():
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(4, 6)), LoraConfig(r=2, lora_alpha=6, target_modules=["0"]))
    layer = model.base_model.model[0]
    assert type(layer) is peft.tuners.lora.Linear
    assert isinstance(layer.lora_dropout["default"], nn.Identity)
    assert not layer.lora_variant
    assert layer.scaling == {"default": 3}
    assert layer.lora_B["default"].bias is None
    nn.init.normal_(layer.lora_B["default"].weight)
    rows = torch.randn(5, 4)
    update = rows @ layer.lora_A["default"].weight.t() @ layer.lora_B["default"].weight.t() * 3
    torch.testing.assert_close(layer(rows), layer.base_layer(rows) + update)
    plain = LoraConfig(r=2, target_modules=["0"], lora_dropout=0.5, use_dora=True)
    dora = get_peft_model(nn.Sequential(nn.Linear(4, 6)), plain).base_model.model[0]
    assert isinstance(dora.lora_dropout["default"], nn.Dropout)
    assert "default" in dora.lora_variant
