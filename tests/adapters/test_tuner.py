"""The bottleneck tuner inside PEFT: what works, and what refuses instead of passing silently."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import peft
import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn

from guidebook.adapters.bottleneck import ACTIVATIONS, bottleneck
from guidebook.adapters.compacter import Compacter
from guidebook.adapters.host import Host
from guidebook.adapters.invertible import Invertible
from guidebook.adapters.parallel import Parallel
from guidebook.adapters.pfeiffer import Pfeiffer
from guidebook.adapters.presets import Houlsby
from guidebook.errors import InputError
from guidebook.peft import BottleneckConfig, BottleneckLayer, BottleneckModel, BottleneckType

pytestmark = pytest.mark.filterwarnings("ignore:Adapter name:UserWarning")  # PEFT dislikes "a"; it does no harm

TARGETS = r".*layer\.\d+\.(attention\.output\.dense|output\.dense)"


def config(**changes) -> BottleneckConfig:
    return BottleneckConfig(**{"target_modules": TARGETS, "width": 4, **changes})


def shake(model: nn.Module, name: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, BottleneckLayer) and name in layer.settings:
            for parameter in (*layer.guidebook_bottleneck_down[name].parameters(),
                              *layer.guidebook_bottleneck_up[name].parameters()):  # fmt: skip
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3


def shake_all(host: Host, name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in host._parameters(name).values():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3


@pytest.fixture(scope="module")
def bert(tiny_base):
    from transformers import AutoModelForMaskedLM

    return AutoModelForMaskedLM.from_pretrained(tiny_base("bert")).eval()


@pytest.fixture
def model(bert):
    return copy.deepcopy(bert)


@pytest.fixture(scope="module")
def inputs():
    ids = torch.arange(5, 33).reshape(4, 7)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.fixture
def three(model, inputs):
    """A PeftModel with adapters of unlike widths and scalings, and the base's logits."""
    with torch.no_grad():
        base = model(**inputs).logits
    wrapped = get_peft_model(model, config(), adapter_name="a").eval()
    wrapped.add_adapter("b", config(width=6, scaling=0.5))
    wrapped.add_adapter("c", config(width=2, target_modules=r".*layer\.1\.output\.dense"))
    for seed, name in enumerate("abc"):
        shake(wrapped, name, seed)
    return wrapped, base


def test_canary_peft_finds_the_tuner():
    """Fails first when a PEFT release changes what `guidebook.peft` relies on."""
    key = json.loads(json.dumps(BottleneckType.BOTTLENECK))
    assert key == "BOTTLENECK"
    assert peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[key] is BottleneckConfig
    assert peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING[key] is BottleneckModel
    assert peft.mapping.PEFT_TYPE_TO_PREFIX_MAPPING[key] == BottleneckModel.prefix
    prefixes = list(peft.mapping.PEFT_TYPE_TO_PREFIX_MAPPING.values())
    assert [other for other in prefixes if BottleneckModel.prefix.startswith(other)] == [BottleneckModel.prefix]


@pytest.mark.slow
def test_without_guidebook_peft_says_so():
    code = "from peft.mapping import get_peft_config; get_peft_config({'peft_type': 'BOTTLENECK'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "KeyError: 'BOTTLENECK'" in done.stderr


def test_new_adapter_changes_no_bit(model, inputs):
    base = model(**inputs).logits
    assert torch.equal(get_peft_model(model, config())(**inputs).logits, base)


def test_stack_is_in_order_bottom_first():
    layer = BottleneckLayer(nn.Linear(3, 5), features=5)
    for name in ("low", "high"):
        layer.update_layer(name, config(width=2))
        nn.init.normal_(layer.guidebook_bottleneck_up[name].weight)
    layer.set_adapter(["low", "high"])
    hidden = torch.randn(4, 3)
    expected = layer.base_layer(hidden)
    for name in ("low", "high"):
        expected = bottleneck(expected, *layer._weights(name), activation=ACTIVATIONS["gelu"])
    assert torch.equal(layer(hidden), expected)
    layer.set_adapter(["high", "low"])
    assert not torch.allclose(layer(hidden), expected)


def test_tuples_and_blocks_without_weight_are_wrapped_and_unwrapped():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            return self.inner(x), "cache"

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block()
            self.config = type("Config", (), {"hidden_size": 4})()

        def forward(self, x):
            return self.block(x)

    plain = Model()
    x = torch.randn(2, 4)
    before = plain(x)[0]
    tuner = BottleneckModel(plain, BottleneckConfig(target_modules=["block"], width=2), "a")
    shake(tuner, "a", 0)
    after, rest = tuner(x)
    assert rest == "cache"
    assert not torch.allclose(after, before)
    bare = tuner.unload()
    assert isinstance(bare.block, Block)
    assert torch.equal(bare(x)[0], before)


def test_unload_leaves_the_bare_base(three, inputs):
    wrapped, base = three
    bare = wrapped.unload()
    assert not [module for module in bare.modules() if isinstance(module, BottleneckLayer)]
    assert torch.equal(bare(**inputs).logits, base)


def test_merge_refuses_and_names_lora(three):
    wrapped, _ = three
    for merge in (
        wrapped.merge_and_unload,
        wrapped.merge_adapter,
        wrapped.base_model.model.bert.encoder.layer[0].output.dense.merge,
    ):
        with pytest.raises(InputError, match=r"cannot be merged.*`lora`"):
            merge()


@torch.no_grad()
def test_mixed_batch_equals_one_adapter_at_a_time(three, inputs):
    wrapped, base = three
    rows = ["b", "__base__", "a", "c"]
    mixed = wrapped(**inputs, adapter_names=rows).logits
    for index, name in enumerate(rows):
        if name == "__base__":
            assert torch.equal(mixed[index], base[index])
            continue
        wrapped.set_adapter(name)
        torch.testing.assert_close(mixed[index], wrapped(**inputs).logits[index], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(mixed[index], base[index], atol=1e-3)


@torch.no_grad()
def test_a_broken_adapter_does_not_reach_the_rows_of_the_base(three, inputs):
    wrapped, base = three
    layer = next(module for module in wrapped.modules() if isinstance(module, BottleneckLayer))
    layer.guidebook_bottleneck_up["a"].weight.fill_(float("nan"))
    mixed = wrapped(**inputs, adapter_names=["a", "__base__", "a", "__base__"]).logits
    assert torch.equal(mixed[1], base[1])
    assert mixed[0].isnan().any()


@torch.no_grad()
def test_disabled_is_the_base(three, inputs):
    wrapped, base = three
    assert not torch.equal(wrapped(**inputs).logits, base)
    with wrapped.disable_adapter():
        assert torch.equal(wrapped(**inputs).logits, base)


@torch.no_grad()
def test_mixed_batch_is_one_product_per_projection(three, inputs):
    wrapped, _ = three
    counts = []
    for rows in (["a", "a", "a", "a"], ["a", "b", "a", "b"]):
        with torch.profiler.profile() as profile:
            wrapped(**inputs, adapter_names=rows)
        counts.append(sum(event.count for event in profile.key_averages() if event.key == "aten::baddbmm"))
    layers = [m for m in wrapped.modules() if isinstance(m, BottleneckLayer)]
    assert counts == [2 * len(layers)] * 2


def test_adapter_names_refuses_what_it_cannot_do(three, inputs):
    wrapped, _ = three
    with pytest.raises(InputError, match="adapter 'd'"):
        wrapped(**inputs, adapter_names=["d", "a", "a", "a"])
    with pytest.raises(InputError, match="has 2 entries"):
        wrapped(**inputs, adapter_names=["a", "b"])
    wrapped.train()
    with pytest.raises(InputError, match="evaluation mode"):
        wrapped(**inputs, adapter_names=["a", "b", "a", "b"])
    wrapped.eval()
    wrapped.add_adapter("d", config(activation="relu"))
    with pytest.raises(InputError, match="activations gelu, relu"):
        wrapped(**inputs, adapter_names=["a", "d", "a", "d"])
    assert all(layer.row_adapters is None for layer in wrapped.modules() if isinstance(layer, BottleneckLayer))


def test_low_precision_base_keeps_fp32_adapters(model, inputs):
    half = model.to(torch.bfloat16)
    base = half(**inputs).logits
    wrapped = get_peft_model(half, config()).eval()
    layer = next(module for module in wrapped.modules() if isinstance(module, BottleneckLayer))
    assert {parameter.dtype for parameter in layer.guidebook_bottleneck_down.parameters()} == {torch.float32}
    assert wrapped(**inputs).logits.dtype == torch.bfloat16
    assert torch.equal(wrapped(**inputs).logits, base)
    mixed = wrapped(**inputs, adapter_names=["default", "__base__"] * 2).logits
    assert torch.equal(mixed, base)


def test_autocast_casts_by_itself(model, inputs):
    wrapped = copy.deepcopy(model)
    with torch.autocast("cpu", torch.bfloat16):
        base = model(**inputs).logits
        wrapped = get_peft_model(wrapped, config()).eval()
        assert torch.equal(wrapped(**inputs).logits, base)
    layer = BottleneckLayer(nn.Linear(16, 16), features=16)
    layer.update_layer("a", config())
    layer.set_adapter(["a"])
    nn.init.normal_(layer.guidebook_bottleneck_up["a"].weight)
    hidden = torch.randn(4, 7, 16)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(hidden)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), layer(hidden), atol=0.05, rtol=0.05)


def test_dropout_only_in_training(model, inputs):
    wrapped = get_peft_model(model, config(dropout=0.5)).eval()
    shake(wrapped, "default", 0)
    assert torch.equal(wrapped(**inputs).logits, wrapped(**inputs).logits)
    layer = next(module for module in wrapped.modules() if isinstance(module, BottleneckLayer))
    layer.train()
    assert not torch.equal(layer(torch.ones(2, 16)), layer(torch.ones(2, 16)))


def test_gradient_checkpointing_gives_the_same_gradients(model, inputs):
    wrapped = get_peft_model(model, config())
    shake(wrapped, "default", 0)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        wrapped.train().zero_grad()
        wrapped(**inputs).logits.square().mean().backward()
        gradients.append([p.grad.clone() for p in wrapped.parameters() if p.requires_grad])
    assert len(gradients[0]) == 2 * 3 * 4
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


OURS = [Houlsby(width=4), Pfeiffer(width=4), Parallel(width=4), Compacter(width=4), Invertible()]


@pytest.mark.parametrize(
    ("family", "kind"),
    [("bert", kind) for kind in OURS] + [("roberta", OURS[0])],
    ids=lambda value: getattr(value, "kind", value),
)
@pytest.mark.parametrize("low_memory", [False, True])
def test_plain_peft_loads_into_the_classification_class(tiny_base, tmp_path, family, kind, low_memory):
    from transformers import AutoModelForSequenceClassification

    host = Host.load(str(tiny_base(family)))
    host.add("domain", kind, 0)
    shake_all(host, "domain")
    host.save("domain", tmp_path)
    host.activate(["domain"])
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_base(family)).eval()
    loaded = PeftModel.from_pretrained(plain, str(tmp_path), low_cpu_mem_usage=low_memory)
    state = peft.get_peft_model_state_dict(loaded, save_embedding_layers=False)
    stored = host.state("domain")
    assert state.keys() == stored.keys()
    assert all(torch.equal(state[name], stored[name]) for name in stored)
    ids = torch.arange(5, 19).reshape(2, 7)
    host.model.eval()
    with torch.no_grad():
        ours = getattr(host.model, family)(input_ids=ids).last_hidden_state
        theirs = getattr(loaded.base_model.model, family)(input_ids=ids).last_hidden_state
    assert torch.equal(ours, theirs)


def test_wrong_values_are_refused():
    with pytest.raises(InputError, match="Did you mean 'gelu'"):
        config(activation="gelo")
    with pytest.raises(InputError, match="width 0"):
        config(width=0)
    with pytest.raises(InputError, match="features"):
        BottleneckModel(nn.Sequential(nn.ReLU()), BottleneckConfig(target_modules=["0"]), "a")
