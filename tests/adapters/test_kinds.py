"""Each kind of adapter against a slow loop written from its paper, on whole models."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from peft import HRAConfig, LoHaConfig, LoKrConfig, OFTConfig
from torch import nn

from guidebook.adapters.bases import Base
from guidebook.adapters.compacter import Compacter
from guidebook.adapters.coupling import couple, uncouple
from guidebook.adapters.dora import DoRA
from guidebook.adapters.host import Host
from guidebook.adapters.ia3 import IA3
from guidebook.adapters.invertible import Invertible
from guidebook.adapters.parallel import Parallel
from guidebook.adapters.pfeiffer import Pfeiffer
from guidebook.adapters.phm import phm_matrix
from guidebook.adapters.presets import KINDS, Houlsby, LoRA
from guidebook.adapters.union import Union
from guidebook.errors import InputError
from guidebook.training.tap import Tap
from tiny import small_adapter

IDS = torch.arange(5, 19).reshape(2, 7)
INPUTS = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


@pytest.fixture(scope="module")
def hosts(tiny_base):
    """family -> host whose layer norms all differ; every test leaves it without adapters."""
    made: dict[str, Host] = {}

    def get(family: str) -> Host:
        if family not in made:
            host = Host.load(str(tiny_base(family)))
            generator = torch.Generator().manual_seed(1)
            for module in host.model.modules():
                if isinstance(module, nn.LayerNorm):
                    for parameter in module.parameters():
                        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            host.fingerprint = host.measure_base()
            made[family] = host
        made[family].model.eval()
        drop(made[family])
        return made[family]

    yield get
    for host in made.values():
        host.check_base()


@torch.no_grad()
def put(host: Host, kind, *names: str) -> None:
    """Add adapters with random values and stack them."""
    for seed, name in enumerate(names):
        host.add(name, kind, seed)
        generator = torch.Generator().manual_seed(seed)
        state = {key: torch.randn(value.shape, generator=generator) * 0.3 for key, value in host.state(name).items()}
        host.load_state(name, kind, state)
    host.activate(names)


def drop(host: Host) -> None:
    for name in host.names:
        host.remove(name)


def part(host: Host, name: str, place: str) -> list[torch.Tensor]:
    """down, its bias, up, its bias of an adapter at a place of the base."""
    state = host.state(name)
    return [state[f"base_model.model.{place}.guidebook_bottleneck_{key}"]
            for key in ("down.weight", "down.bias", "up.weight", "up.bias")]  # fmt: skip


def f(x, weights, activation=torch.relu):
    """The bottleneck without residual, one matrix after the other."""
    down, down_bias, up, up_bias = weights
    return activation(x @ down.T + down_bias) @ up.T + up_bias


def states(host):
    """Hidden states that a base of any kind collects, and its last one at the head."""
    with torch.no_grad():
        return host.model(**INPUTS, output_hidden_states=True).hidden_states


# Pfeiffer


@torch.no_grad()
def test_pfeiffer_uses_each_layers_own_norm_and_both_its_inputs(hosts):
    host = hosts("bert")
    put(host, Pfeiffer(width=3), "one", "two")
    norms = [layer.output.LayerNorm.base_layer for layer in host.model.bert.encoder.layer]
    assert len({tuple(norm.weight.tolist()) for norm in norms}) == 3
    hidden = host.model.bert.embeddings(IDS)
    for index, layer in enumerate(host.model.bert.encoder.layer):
        x = layer.attention(hidden)[0]
        h, norm = layer.output.dense(layer.intermediate(x)), norms[index]
        for name in ("one", "two"):  # the second sees what the first has made of h
            h = h + f(norm(h + x), part(host, name, f"bert.encoder.layer.{index}.output.LayerNorm"))
        hidden = norm(h + x)
    torch.testing.assert_close(host.model.bert(**INPUTS).last_hidden_state, hidden, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_pfeiffer_where_layers_normalise_before(hosts, family):
    host = hosts(family)
    layers, place = {
        "llama": (lambda: host.model.model.layers, "model.layers"),
        "gpt2": (lambda: host.model.transformer.h, "transformer.h"),
    }[family]
    before = states(host)
    put(host, Pfeiffer(width=3), "one")
    collected = states(host)
    assert torch.equal(collected[0], before[0])
    for index in range(2):  # the last state is after the model's final norm
        bare = layers()[index].base_layer
        with host.disabled():
            seen = {}
            handle = bare.register_forward_pre_hook(lambda _, args, kwargs, seen=seen: seen.update(kwargs, args=args),
                                                    with_kwargs=True)  # fmt: skip
            host.model(**INPUTS, use_cache=False)
            handle.remove()
            (_, *rest), named = seen.pop("args"), seen
            out = bare(collected[index], *rest, **named)
            out = out[0] if isinstance(out, tuple) else out
        expected = out + f(out, part(host, "one", f"{place}.{index}"))
        torch.testing.assert_close(collected[index + 1], expected, atol=1e-5, rtol=1e-5)
    assert host.add("two", Pfeiffer(width=3), 0) is None  # a wrapped layer is found again
    host.remove("two")
    host.remove("one")
    assert all(torch.equal(one, other) for one, other in zip(states(host), before, strict=True))


def test_pfeiffer_with_checkpointed_layers_has_the_same_gradients(tiny_base):
    gradients = []
    for checkpointing in (False, True):
        host = Host.load(str(tiny_base("llama")))
        put(host, Pfeiffer(width=3), "one")
        host.activate(["one"], train=["one"])
        if checkpointing:
            host.model.gradient_checkpointing_enable({"use_reentrant": False})
        host.model.train()
        host.model(**INPUTS, use_cache=False).logits.square().mean().backward()
        gradients.append([parameter.grad for parameter in host.trainable().values()])
    assert len(gradients[0]) == 3 * 4
    assert all(one.any() for one in gradients[0])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@torch.no_grad()
def test_a_copied_model_has_adapters_of_its_own(hosts):
    host = hosts("llama")
    put(host, Pfeiffer(width=3), "one")
    model = copy.deepcopy(host.model)
    before = model(**INPUTS).logits
    assert torch.equal(before, host.model(**INPUTS).logits)
    for parameter in host._parameters("one").values():
        parameter.zero_()
    assert torch.equal(model(**INPUTS).logits, before)
    assert not torch.allclose(host.model(**INPUTS).logits, before)


# parallel


@torch.no_grad()
def test_parallel_reads_what_the_feed_forward_reads(hosts):
    host = hosts("bert")
    put(host, Parallel(width=3, scaling=2.5), "one")
    hidden = host.model.bert.embeddings(IDS)
    for index, layer in enumerate(host.model.bert.encoder.layer):
        x = layer.attention(hidden)[0]
        h = layer.output.base_layer.dense(layer.intermediate(x))
        h = h + 2.5 * f(x, part(host, "one", f"bert.encoder.layer.{index}.output"))
        hidden = layer.output.base_layer.LayerNorm(h + x)
    torch.testing.assert_close(host.model.bert(**INPUTS).last_hidden_state, hidden, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_parallel_beside_a_block_of_one_input(hosts):
    host = hosts("llama")
    put(host, Parallel(width=3), "one")
    x = torch.randn(2, 7, 16)
    mlp = host.model.model.layers[1].mlp
    expected = mlp.base_layer(x) + 4.0 * f(x, part(host, "one", "model.layers.1.mlp"))
    torch.testing.assert_close(mlp(x), expected)


# Compacter


def test_phm_is_a_sum_of_kronecker_products():
    generator = torch.Generator().manual_seed(0)
    rule, left, right = (torch.randn(*shape, generator=generator) for shape in [(3, 3, 3), (3, 4, 2), (3, 2, 5)])
    expected = torch.zeros(12, 15)
    for a, s, t in zip(rule, left, right, strict=True):
        small = s @ t
        for i in range(3):
            for j in range(3):
                for k in range(4):
                    for m in range(5):
                        expected[i * 4 + k, j * 5 + m] += a[i, j] * small[k, m]
    torch.testing.assert_close(phm_matrix(rule, left, right), expected)


@torch.no_grad()
def test_compacter_is_houlsby_with_these_matrices(hosts):
    host = hosts("roberta")
    put(host, Compacter(width=4, products=4, rank=2), "one")
    state, out = host.state("one"), host.model(**INPUTS).logits
    rules = [value for name, value in state.items() if "_rule" in name]
    assert len(rules) == 1  # shared by all twelve projections
    dense = {}
    for name in [name.removesuffix(".left") for name in state if name.endswith(".left")]:
        matrix = sum(torch.kron(a, s @ t) for a, s, t in zip(rules[0], state[f"{name}.left"], state[f"{name}.right"],
                                                               strict=True))  # fmt: skip
        dense |= {f"{name}.weight": matrix.T, f"{name}.bias": state[f"{name}.bias"]}
    drop(host)
    host.load_state("same", Houlsby(width=4), dense)
    host.activate(["same"])
    torch.testing.assert_close(host.model(**INPUTS).logits, out, atol=1e-5, rtol=1e-5)


def test_compacter_starts_with_the_variance_of_a_linear_layer(hosts):
    host = hosts("bert")
    host.add("one", Compacter(width=8, products=4, rank=4), 0)
    layer = host.model.bert.encoder.layer[0].output.dense
    rule = layer.owners["one"].guidebook_bottleneck_rule["one"].weight
    drawn = [host.model.bert.encoder.layer[i].output.dense.guidebook_bottleneck_down["one"].weight_by(rule)
             for i in range(3)]  # fmt: skip
    assert 0.5 < torch.stack(drawn).std() * math.sqrt(3 * 16) < 2


def test_what_does_not_divide_is_refused(hosts):
    with pytest.raises(InputError, match=r"adapter\.products is 3, expected a number that divides 16"):
        hosts("bert").add("one", Compacter(products=3), 0)


def test_an_injection_that_fails_half_way_leaves_nothing(hosts, tmp_path):
    from transformers import BertConfig, BertForMaskedLM

    host = hosts("bert")
    host.add("one", Compacter(width=4), 0)
    host.save("one", tmp_path)
    sizes = {"hidden_size": 18, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2}
    config = BertConfig(vocab_size=20, **sizes)
    other = Host(Base(BertForMaskedLM(config).eval(), None, config, "x", "x"))
    before = other.model(input_ids=IDS).logits
    for names in ([], ["there"]):
        for name in names:
            other.add(name, Houlsby(width=3), 0)
        with pytest.raises(InputError, match="4 Kronecker products need a hidden size that 4 divides, found 18"):
            other.load_adapter("one", tmp_path)
        assert other.names == names
        assert all(layer._all_available_adapter_names() == names for _, layer in other._tuners.layers())
        assert torch.equal(other.model(input_ids=IDS).logits, before)
    other.remove("there")
    assert not [name for name, _ in other.model.named_modules() if "base_layer" in name]


# invertible


def weights(reads: int, writes: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=generator, dtype=torch.float64)
                 for shape in [(2, reads), (2,), (writes, 2), (writes,)])  # fmt: skip


@pytest.mark.parametrize("hidden", [6, 7])
def test_coupling_is_the_papers_and_its_inverse_undoes_it(hidden):
    low, high = hidden // 2, hidden - hidden // 2
    first, second = weights(high, low, 0), weights(low, high, 1)
    x = torch.randn(4, 3, hidden, dtype=torch.float64)
    y = couple(x, first, second, activation=torch.tanh)
    a = x[..., :low] + f(x[..., low:], first, torch.tanh)
    b = x[..., low:] + f(a, second, torch.tanh)
    torch.testing.assert_close(y, torch.cat([a, b], -1))
    torch.testing.assert_close(uncouple(y, first, second, activation=torch.tanh), x, atol=1e-12, rtol=0)


def coupled(host, name, place, hidden, change):
    state = host.state(name)
    start, keys = (
        f"base_model.model.{place}.guidebook_invertible_",
        ("down.weight", "down.bias", "up.weight", "up.bias"),
    )
    first, second = ([state[f"{start}{which}_{key}"] for key in keys] for which in ("first", "second"))
    return change(hidden, first, second, activation=torch.relu)


@torch.no_grad()
def test_invertible_is_undone_before_tied_output_embeddings(hosts):
    host = hosts("bert")
    put(host, Invertible(), "one", "two")
    embedded = host.model.bert.embeddings.base_layer(IDS)
    for name in ("one", "two"):
        embedded = coupled(host, name, "bert.embeddings", embedded, couple)
    torch.testing.assert_close(host.model.bert.embeddings(IDS), embedded)
    with Tap(host.lm_head) as tap:
        tapped = tap.run(host.model, INPUTS, torch.arange(14))
    hidden = host.model.cls.predictions.transform(tapped.hidden)
    for name in ("two", "one"):
        hidden = coupled(host, name, "bert.embeddings", hidden, uncouple)
    expected = host.model.cls.predictions.decoder.base_layer(hidden)
    torch.testing.assert_close(tapped.logits, expected.flatten(0, 1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_tap_sees_the_hidden_state_before_the_inverse(hosts):
    host = hosts("gpt2")  # its head is the tied output embedding itself
    put(host, Invertible(), "one")
    with Tap(host.lm_head) as tap:
        tapped = tap.run(host.model, INPUTS, torch.tensor([3, 9]))
    torch.testing.assert_close(tapped.hidden, host.model.transformer(**INPUTS).last_hidden_state)
    torch.testing.assert_close(tapped.logits, host.model(**INPUTS).logits.flatten(0, 1)[[3, 9]], atol=1e-5, rtol=1e-5)
    expected = coupled(host, "one", "transformer.wte", tapped.hidden, uncouple)
    torch.testing.assert_close(host.model(**INPUTS).logits, expected @ host.model.transformer.wte.weight.T,
                               atol=1e-5, rtol=1e-5)  # fmt: skip


@torch.no_grad()
def test_no_inverse_where_embeddings_are_not_tied(hosts):
    host = hosts("llama")
    assert host.model.lm_head.weight is not host.model.model.embed_tokens.weight
    put(host, Invertible(), "one")
    assert [name for name, _ in host._tuners.layers()] == ["model.embed_tokens"]
    assert host._configs["one"][0].inverse_modules is None


@torch.no_grad()
def test_the_inverse_finds_the_embeddings_wherever_they_stand():
    from test_placement import tiny_host

    host = tiny_host("xlm-roberta")  # its head comes before its body
    assert [name for name, _ in host.model.named_children()] == ["lm_head", "roberta"]
    before = host.model(**INPUTS).logits
    host.add("one", Invertible(), 0)
    host.activate(["one"])
    assert torch.equal(host.model(**INPUTS).logits, before)
    put_random = {name: torch.randn(value.shape) for name, value in host.state("one").items()}
    host.load_state("one", Invertible(), put_random)
    hidden = torch.randn(2, 3, 16)
    decoder = host.model.lm_head.decoder
    expected = decoder.base_layer(coupled(host, "one", "roberta.embeddings", hidden, uncouple))
    torch.testing.assert_close(decoder(hidden), expected)
    assert len(host.trainable()) == 0
    host.activate(["one"], train=["one"])
    assert len(host.trainable()) == 8
    host.remove("one")
    assert torch.equal(host.model(**INPUTS).logits, before)


# DoRA and IA3 are PEFT's; what is ours is where they sit and what they start as


@torch.no_grad()
def test_dora_is_lora_with_a_length_for_every_output(hosts):
    host = hosts("bert")
    put(host, DoRA(rank=2), "one")
    state, out = host.state("one"), host.model.bert.encoder.layer[0].output.dense
    place = "base_model.model.bert.encoder.layer.0.output.dense"
    x = torch.randn(4, 32)
    linear = out.get_base_layer()
    moved = linear.weight + 2.0 * state[f"{place}.lora_B.weight"] @ state[f"{place}.lora_A.weight"]
    lengths = state[f"{place}.lora_magnitude_vector"]
    expected = x @ (lengths[:, None] * moved / moved.norm(dim=1, keepdim=True)).T + linear.bias
    torch.testing.assert_close(out(x), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_ia3_scales_keys_values_and_inner_activations(hosts):
    host = hosts("bert")
    put(host, IA3(layers="top 1"), "one")
    names = {name.removeprefix("base_model.model.bert.encoder.layer.").removesuffix(".ia3_l")
             for name in host.state("one")}  # fmt: skip
    assert names == {"2.attention.self.key", "2.attention.self.value", "2.output.dense"}
    layer, state = host.model.bert.encoder.layer[2], host.state("one")
    start = "base_model.model.bert.encoder.layer.2"
    x, inner = torch.randn(4, 16), torch.randn(4, 32)
    key = layer.attention.self.key
    torch.testing.assert_close(key(x), key.get_base_layer()(x) * state[f"{start}.attention.self.key.ia3_l"][:, 0])
    dense = layer.output.dense
    torch.testing.assert_close(dense(inner), dense.get_base_layer()(inner * state[f"{start}.output.dense.ia3_l"][0]))


# several kinds on one base


@torch.no_grad()
def test_a_union_is_its_parts_together(hosts, tmp_path):
    host = hosts("bert")
    union = Union((Invertible(), Houlsby(width=4)))
    put(host, union, "one")
    together, state = host.model(**INPUTS).logits, host.state("one")
    host.save("one", tmp_path)
    drop(host)
    host.load_adapter("embedded", tmp_path / "invertible")
    host.load_adapter("inside", tmp_path / "houlsby")
    host.activate(["embedded", "inside"])
    assert torch.equal(host.model(**INPUTS).logits, together)
    apart = host.state("embedded") | host.state("inside")
    assert apart.keys() == state.keys()
    assert all(torch.equal(apart[name], state[name]) for name in state)
    assert [host.kind_of(name) for name in host.names] == ["invertible", "houlsby"]
    host.remove("inside")
    host.activate(["embedded"])
    alone = host.model(**INPUTS).logits
    assert not torch.allclose(alone, together)


@pytest.mark.parametrize(
    ("first", "second"),
    [(Houlsby(), LoRA()), (LoRA(), IA3()), (Parallel(), Houlsby()), (Houlsby(), Parallel()), (Pfeiffer(), LoRA()),
     (LoRA(), Pfeiffer())],
    ids=lambda kind: kind.kind,
)  # fmt: skip
def test_kinds_in_the_same_modules_refuse_each_other(hosts, first, second):
    host = hosts("llama")
    host.add("domain", first, 0)
    with pytest.raises(InputError, match=f"of kind {second.kind}, but the base carries {first.kind} in the same mod"):
        host.add("task", second, 0)
    assert host.names == ["domain"]
    host.remove("domain")
    host.add("task", second, 0)


def test_kinds_of_other_modules_share_a_base(hosts):
    host = hosts("bert")
    host.add("domain", Houlsby(), 0)
    host.add("more", Compacter(width=4), 0)  # the same modules, but the same tuner too
    host.add("top", Pfeiffer(), 0)
    host.add("embedded", Invertible(), 0)
    assert [host.kind_of(name) for name in host.names] == ["houlsby", "compacter", "pfeiffer", "invertible"]
    host.activate(host.names, train=["embedded", "more"])
    assert {name.split(".guidebook_")[1].split(".")[1] for name in host.trainable()} == {"embedded", "more"}


def test_what_a_kind_cannot_do_on_a_base_is_said_before_anything_is_changed(tiny_base):
    from test_placement import tiny_host

    albert, mixtral, t5 = (tiny_host(name) for name in ("albert", "mixtral", "t5"))
    for host, kind, message in (
        (albert, Parallel(), "parallel does not fit AlbertForMaskedLM.*adapter.modules.block"),
        (mixtral, IA3(), "mlp is not a linear module. Choose lora"),
        (t5, Invertible(), "an encoder-decoder embeds two texts"),
    ):
        with pytest.raises(InputError, match=message):
            host.add("one", kind, 0)
        assert host.names == []
    t5.add("one", Pfeiffer(), 0)
    assert [name for name, _ in t5._tuners.layers()] == [
        "encoder.block.0.layer.1", "encoder.block.1.layer.1", "decoder.block.0.layer.2", "decoder.block.1.layer.2"
    ]  # fmt: skip


def test_unions_are_of_two_kinds_or_more(hosts):
    for parts in ((Houlsby(),), (Houlsby(), Houlsby())):
        with pytest.raises(InputError, match="is no union"):
            Union(parts)
    with pytest.raises(InputError, match="in the same modules"):
        hosts("bert").add("one", Union((LoRA(), Houlsby())), 0)
    assert hosts("bert").names == []
    assert not hasattr(hosts("bert").model.bert.encoder.layer[0].output.dense, "base_layer")  # nothing half-made


@dataclass(frozen=True)
class New:
    """A kind of PEFT that nothing here knows, with projections of its own names."""

    config: Any
    kind: str = "new"
    learning_rate: float = 1e-3

    def peft_config(self, model, placement):
        return self.config(target_modules=r".*\.(query|value)")


def every_kind() -> list[Any]:
    known = [small_adapter(kind) for kind in KINDS if kind != "full"]
    made = [
        partial(LoHaConfig, r=2),
        partial(LoKrConfig, r=2),
        partial(HRAConfig, r=2),
        partial(OFTConfig, r=2, oft_block_size=0),
    ]
    return [*known, *(New(config) for config in made)]


@pytest.mark.parametrize(
    "kind", every_kind(), ids=lambda kind: getattr(kind, "config", partial(type(kind))).func.__name__
)
def test_first_weights_come_from_the_seed_alone(hosts, kind):
    """Whatever the global generator did before, and whichever names the tuner gives to its projections."""
    host = hosts("bert")

    def first(seed: int, state: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(state)
        before = torch.get_rng_state()
        host.add("a", kind, seed)
        assert torch.equal(torch.get_rng_state(), before)
        found = {name: value.detach().clone() for name, value in host._parameters("a").items()}
        host.remove("a")
        return found

    one, same, other = first(5, 1), first(5, 2), first(6, 1)
    assert one
    assert one.keys() == same.keys()
    assert all(torch.equal(one[name], same[name]) for name in one)
    drawn = {name for name in one if not torch.equal(one[name], other[name])}
    constant = [name for name in one if name not in drawn and float(one[name].float().std(correction=0)) > 0]
    assert kind.kind in ("dora", "new") or not constant  # DoRA's magnitudes are the base's
    assert drawn or kind.kind in ("ia3", "new")


def test_a_new_kind_that_draws_draws_from_the_seed(hosts):
    host, found = hosts("bert"), []
    for seed in (0, 1):
        host.add("a", New(partial(LoHaConfig, r=2)), seed)
        found.append(host._parameters("a"))
        host.remove("a")
    assert any(not torch.equal(found[0][name], found[1][name]) for name in found[0])
