"""The host: adapters by name on a base that never moves."""

from __future__ import annotations

import copy
import shutil
from importlib import import_module

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from guidebook.adapters import bases
from guidebook.adapters.fingerprints import fingerprint_of
from guidebook.adapters.host import Host
from guidebook.adapters.invertible import Invertible
from guidebook.adapters.presets import KINDS as TABLE
from guidebook.adapters.presets import Full, Houlsby, LoRA
from guidebook.adapters.tuners import ONE_AT_A_TIME
from guidebook.adapters.union import Union
from guidebook.errors import InputError, RunError

FAMILIES = ["bert", "roberta", "gpt2", "llama"]
SMALL = {"houlsby": {"reduction": 4}, "pfeiffer": {"reduction": 4}, "compacter": {"reduction": 4},
         "lora": {"rank": 2}, "dora": {"rank": 2}}  # fmt: skip


def made(name: str):
    module, _, kind = TABLE[name].partition(":")
    return getattr(import_module(module), kind)(**SMALL.get(name, {}))


UNIONS = [Union((Invertible(), LoRA(rank=2))), Union((Invertible(), Houlsby(reduction=4)))]
KINDS = [*map(made, TABLE), *UNIONS]
PARTS = [kind for kind in KINDS if kind.kind != "full"]
ALONE = [kind for kind in PARTS if set(kind.kind.split("+")) & set(ONE_AT_A_TIME)]
MIXING = [kind for kind in PARTS if kind not in ALONE]
FAST = ("houlsby", "pfeiffer", "lora", "full", "houlsby+invertible")
"""The other kinds go through the same contracts in the slow tests."""
PAIRS = [
    pytest.param(
        family,
        kind,
        id=f"{family}-{kind.kind}",
        marks=() if (family == "bert" and kind.kind in FAST) or kind.kind == "houlsby" else pytest.mark.slow,
    )
    for family in FAMILIES
    for kind in KINDS
]
PEFT_FILES = {"adapter_config.json", "adapter_model.safetensors"}


def kind_name(kind) -> str:
    return kind.kind if hasattr(kind, "kind") else str(kind)


def every(values):
    marked = [pytest.param(kind, marks=() if kind.kind in FAST else pytest.mark.slow) for kind in values]
    return pytest.mark.parametrize("kind", marked, ids=kind_name)


@pytest.fixture(scope="module")
def shared(tiny_base):
    """family -> host; every test leaves it without adapters."""
    made: dict[str, Host] = {}

    def get(family: str) -> Host:
        host = made.setdefault(family, None) or Host.load(str(tiny_base(family)))
        made[family] = host
        host.model.eval()
        return host

    yield get
    for host in made.values():
        host.check_base()


@pytest.fixture
def host(shared):
    host = shared("bert")
    yield host
    host.model.eval()
    for name in host.names:
        host.remove(name)


@pytest.fixture(scope="module")
def inputs():
    ids = torch.arange(5, 19).reshape(2, 7)
    return {"input_ids": ids, "attention_mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2])}


@torch.no_grad()
def logits(host, inputs):
    return host.model(**inputs).logits


@torch.no_grad()
def shake(host, name, seed=0):
    """Give an adapter random values."""
    generator = torch.Generator().manual_seed(seed)
    state = {key: torch.randn(value.shape, generator=generator) * 0.3 for key, value in host.state(name).items()}
    host.load_state(name, None, state)


def descend(host, inputs, steps=2):
    trainable = host.trainable()
    optimiser = torch.optim.SGD(trainable.values(), lr=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        host.model(**inputs).logits.square().mean().backward()
        optimiser.step()


# identity, and the base that does not move


@pytest.mark.parametrize(("family", "kind"), PAIRS)
def test_new_adapter_changes_no_bit_of_output_or_base(shared, inputs, family, kind):
    host = shared(family)
    before, bits = logits(host, inputs), host.measure_base()
    host.add("domain", kind, seed=3)
    assert torch.equal(logits(host, inputs), before)  # not active yet
    host.activate(["domain"], train=["domain"])
    assert torch.equal(logits(host, inputs), before)
    assert host.measure_base() == bits == host.fingerprint
    host.remove("domain")
    assert not hasattr(host.model, "peft_config")
    assert torch.equal(logits(host, inputs), before)


@every(KINDS)
def test_training_moves_the_adapter_and_nothing_else(host, inputs, kind):
    before = logits(host, inputs)
    host.add("domain", kind, 0)
    shake(host, "domain")
    host.copy("domain", "other")
    host.activate(["domain"], train=["domain"])
    start = host.state("domain")
    descend(host, inputs)
    moved = host.state("domain")
    assert any(not torch.equal(start[key], moved[key]) for key in start)
    assert all(torch.equal(start[key], value) for key, value in host.state("other").items())
    host.check_base()
    trained = logits(host, inputs)
    with host.disabled():
        assert torch.equal(logits(host, inputs), before)
        assert not host.trainable()
    assert torch.equal(logits(host, inputs), trained)
    assert host.trainable()
    host.activate(())
    assert torch.equal(logits(host, inputs), before)
    assert host.stack == ()


@every(PARTS)
def test_what_is_below_stays_frozen(host, inputs, kind):
    host.add("domain", kind, 0)
    shake(host, "domain")
    host.copy("domain", "task")
    host.activate(["domain", "task"], train=["task"])
    assert host.trainable()
    assert all(".task." in f"{name}." for name in host.trainable())
    before = host.state("domain")
    descend(host, inputs)
    assert all(torch.equal(before[key], value) for key, value in host.state("domain").items())
    assert any(not torch.equal(before[key], value) for key, value in host.state("task").items())
    host.add("third", kind, 0)  # PEFT makes what it activates trainable
    assert all(".task." in f"{name}." for name in host.trainable())
    assert host.stack == ("domain", "task")


def test_adapters_of_unlike_settings_live_together(host, inputs):
    before = logits(host, inputs)
    host.add("domain", Houlsby(width=4), 0)
    host.add("task", Houlsby(width=6, layers="top 1", activation="relu"), 0)
    shake(host, "domain")
    host.activate(["domain"])
    alone = logits(host, inputs)
    host.activate(["domain", "task"])
    assert torch.equal(logits(host, inputs), alone)  # the task adapter is still the identity
    shake(host, "task", 1)
    stacked = logits(host, inputs)
    host.activate(["task", "domain"])
    assert not torch.allclose(logits(host, inputs), stacked)
    assert not torch.allclose(stacked, alone)
    assert not torch.allclose(alone, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_fingerprint_is_that_of_a_fresh_base(shared, tiny_base, family):
    host = shared(family)
    assert Host.load(str(tiny_base(family))).fingerprint == host.fingerprint
    host.add("domain", Houlsby(), 0)
    assert host.measure_base() == host.fingerprint
    host.remove("domain")
    assert len({Host.load(str(tiny_base(other))).fingerprint for other in ("bert", "roberta")}) == 2


def test_fingerprint_covers_names_types_shapes_and_bytes():
    one = {"a": torch.zeros(2, 3), "b": torch.zeros(1)}
    others = [
        {"a": torch.zeros(2, 3), "c": torch.zeros(1)},
        {"a": torch.zeros(3, 2), "b": torch.zeros(1)},
        {"a": torch.zeros(2, 3), "b": torch.zeros(1, dtype=torch.int32)},
        {"a": torch.zeros(2, 3), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": -torch.zeros(1)},
    ]
    assert len({fingerprint_of(tensors) for tensors in [one, *others]}) == 6
    assert fingerprint_of(dict(reversed(one.items()))) == fingerprint_of(one)


def test_a_base_that_moved_is_noticed(tiny_base):
    host = Host.load(str(tiny_base("bert")))
    next(host.model.parameters()).data[0, 0] += 1
    with pytest.raises(RunError, match="has changed in memory"):
        host.check_base()


@every(KINDS)
def test_tied_weights_stay_tied_and_are_stored_once(host, kind):
    host.add("domain", kind, 0)
    host.activate(["domain"], train=["domain"])
    model = host.model
    tied = model.cls.predictions.decoder.weight, model.bert.embeddings.word_embeddings.weight
    assert tied[0] is tied[1]
    state = host.state("domain")
    assert not [name for name in state if "decoder" in name]
    assert host.parameters_of("domain") == sum(value.numel() for value in state.values())
    assert host.parameters_of("domain") == sum(parameter.numel() for parameter in host.trainable().values())


# seeds


@every(PARTS)
def test_a_seed_decides_alone(host, kind):
    generator = torch.get_rng_state()
    host.add("one", kind, seed=7)
    torch.rand(3)
    host.add("two", kind, seed=7)
    host.add("three", kind, seed=8)
    torch.set_rng_state(generator)
    host.add("four", kind, seed=7)
    assert torch.equal(torch.get_rng_state(), generator)
    one, two, three, four = (host.state(name) for name in ("one", "two", "three", "four"))
    drawn = [name for name in one if not torch.equal(one[name], three[name])]
    assert all(torch.equal(one[name], two[name]) and torch.equal(one[name], four[name]) for name in one)
    assert kind.kind == "ia3" or len(drawn) >= len(one) / 4 - 1  # the rest is zero, or what the base decides
    assert len({tuple(one[name].flatten()[:3].tolist()) for name in drawn}) == len(drawn)  # no two modules alike


def test_a_module_draws_the_same_whichever_others_are_there(host):
    host.add("all", Houlsby(), 0)
    host.add("top", Houlsby(layers="top 1"), 0)
    everything, top = host.state("all"), host.state("top")
    assert 0 < len(top) < len(everything)
    assert all(torch.equal(everything[name], value) for name, value in top.items())


# copies, states and files


@every(KINDS)
def test_copies_are_exact_and_independent(host, inputs, kind):
    host.add("one", kind, 0)
    shake(host, "one")
    host.activate(["one"])
    host.copy("one", "two")
    before, expected = host.state("one"), logits(host, inputs)
    assert host.names == ["one", "two"]
    host.activate(["two"], train=["two"])
    assert torch.equal(logits(host, inputs), expected)
    descend(host, inputs)
    host.activate(["one"])
    assert torch.equal(logits(host, inputs), expected)
    assert all(torch.equal(before[key], value) for key, value in host.state("one").items())


@every(KINDS)
def test_states_are_snapshots(host, inputs, kind):
    host.add("one", kind, 0)
    host.activate(["one"], train=["one"])
    before = host.state("one")
    kept = {key: value.clone() for key, value in before.items()}
    descend(host, inputs)
    assert all(torch.equal(kept[key], before[key]) for key in kept)
    host.load_state("two", kind, before)
    assert all(torch.equal(kept[key], value) for key, value in host.state("two").items())
    with pytest.raises(InputError, match="does not fit"):
        host.load_state("three", kind, {})
    assert host.names == ["one", "two"]


@pytest.mark.parametrize(("family", "kind"), PAIRS)
def test_saved_and_loaded_bitwise(shared, inputs, tmp_path, family, kind):
    host = shared(family)
    host.add("domain", kind, 0)
    shake(host, "domain")
    host.activate(["domain"])
    before, state = logits(host, inputs), host.state("domain")
    for folder in ("a", "b"):
        host.save("domain", tmp_path / folder)
    host.remove("domain")
    host.load_adapter("again", tmp_path / "a")
    assert host.kind_of("again") == kind.kind
    host.activate(["again"])
    assert torch.equal(logits(host, inputs), before)
    loaded = host.state("again")
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    host.remove("again")
    for part in kind.kind.split("+") if "+" in kind.kind else ():
        assert {path.name for path in (tmp_path / "a" / part).iterdir()} >= PEFT_FILES
    files = {str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert "+" in kind.kind or files >= ({"config.json", "model.safetensors"} if kind.kind == "full" else PEFT_FILES)
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


@every(PARTS)
def test_the_state_is_what_peft_saves(host, kind):
    host.add("domain", kind, 0)
    host.add("task", kind, 1)
    shake(host, "domain")
    theirs = {}
    for tuner in host._tuners.peft.values():
        theirs |= peft.get_peft_model_state_dict(tuner, adapter_name="domain", save_embedding_layers=False)
    ours = host.state("domain")
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key], ours[key]) for key in ours)


def test_an_adapter_of_another_base_does_not_load(host, tmp_path, tiny_base):
    from transformers import BertConfig, BertForMaskedLM

    host.add("domain", Houlsby(width=4), 0)
    host.save("domain", tmp_path / "adapter")
    host.remove("domain")
    wide = tmp_path / "wide"
    shutil.copytree(tiny_base("bert"), wide)
    settings = copy.deepcopy(BertConfig.from_pretrained(wide))
    settings.hidden_size = 32
    BertForMaskedLM(settings).save_pretrained(wide)
    other = Host.load(str(wide))
    with pytest.raises(InputError, match="does not fit the base"):
        other.load_adapter("domain", tmp_path / "adapter")
    assert other.names == []
    gpt2 = Host.load(str(tiny_base("gpt2")))
    with pytest.raises(InputError, match="does not fit the base"):
        gpt2.load_adapter("domain", tmp_path / "adapter")
    assert gpt2.names == []
    gpt2.add("domain", Houlsby(), 0)  # nothing half-made was left behind


def test_damaged_files_are_named(host, tmp_path):
    with pytest.raises(InputError, match="there is no adapter here"):
        host.load_adapter("domain", tmp_path)
    host.add("domain", Houlsby(), 0)
    host.save("domain", tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"adapter_model\.safetensors cannot be read"):
        host.load_adapter("other", tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "HOULSBY"}')
    with pytest.raises(InputError, match=r"adapter_config\.json is not the configuration"):
        host.load_adapter("other", tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LOHA"}')
    with pytest.raises(InputError, match="unknown kind"):
        host.load_adapter("other", tmp_path)


# kinds


def test_bottlenecks_and_lora_do_not_mix(host):
    host.add("domain", Houlsby(), 0)
    with pytest.raises(InputError, match="of kind lora, but the base carries houlsby"):
        host.add("task", LoRA(), 0)
    host.remove("domain")
    host.add("task", LoRA(), 0)
    assert (host.kind_of("task"), host.names) == ("lora", ["task"])


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_has_as_many_parameters_as_houlsby(shared, family):
    host = shared(family)
    host.add("task", LoRA(), 0)
    lora, twin = host.parameters_of("task"), Houlsby(reduction=16).parameters(host.model, host.placement)
    rank = host._configs["task"][0].r
    assert rank == 1 or abs(lora - twin) <= lora / rank / 2
    assert (host._configs["task"][0].lora_alpha, lora) == (2 * rank, LoRA().parameters(host.model, host.placement))
    host.add("wide", LoRA(rank=5, alpha=3.0), 0)
    assert host.parameters_of("wide") == 5 * lora / rank
    assert (host._configs["wide"][0].r, host._configs["wide"][0].lora_alpha) == (5, 3.0)
    host.remove("task")
    host.remove("wide")


def test_rank_is_the_nearest(host):
    """Counted by hand: rank r on a BERT layer costs r (8 H + 2 (H + I)), Houlsby of width 1 2 (3 H + 1)."""
    per_rank = 3 * (8 * 16 + 2 * (16 + 32))
    assert LoRA(rank=1).parameters(host.model, host.placement) == per_rank
    assert Houlsby(reduction=16).parameters(host.model, host.placement) == 3 * 2 * (3 * 16 + 1)
    assert LoRA().rank_for(host.model, host.placement) == max(1, round(3 * 2 * (3 * 16 + 1) / per_rank))


def test_rank_is_rounded_to_the_nearest(tiny_base):
    """Hidden 112, width 7: 2 (2 * 112 * 7 + 119) = 3374 a layer against 8 * 112 + 2 * 560 = 2016 a rank: 1.67."""
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 112, "intermediate_size": 448, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = BertConfig(vocab_size=8, **sizes)
    host = Host(bases.Base(BertForMaskedLM(config), None, config, "x", "x"))
    assert Houlsby().parameters(host.model, host.placement) == 3374
    assert LoRA().rank_for(host.model, host.placement) == 2
    host.add("task", LoRA(), 0)
    assert LoRA().rank_for(host.model, host.placement) == 2  # counted on the base, not on what is in it
    assert host.parameters_of("task") == 2 * 2016


@every([Houlsby(dropout=0.5), LoRA(dropout=0.5)])
def test_adapter_dropout_follows_the_mode_of_the_base(host, inputs, kind):
    for name in ("domain", "task"):
        host.add(name, kind, 0)
        shake(host, name)
        host.activate([name])
        assert torch.equal(logits(host, inputs), logits(host, inputs))
    host.model.train()
    assert not torch.equal(logits(host, inputs), logits(host, inputs))


def test_full_copies_change_places(host, inputs):
    before = logits(host, inputs)
    host.add("one", Full(), 0)
    host.copy("one", "two")
    shake(host, "one", 1)
    shake(host, "two", 2)
    host.activate(["one"])
    assert not host.trainable()
    first = logits(host, inputs)
    host.activate(["two"])
    second = logits(host, inputs)
    assert len({tuple(values.flatten().tolist()) for values in (before, first, second)}) == 3
    host.activate(["one"])
    assert torch.equal(logits(host, inputs), first)
    assert host.measure_base() == host.fingerprint  # measured while another copy is in the model
    host.remove("one")
    assert torch.equal(logits(host, inputs), before)
    assert host.model.cls.predictions.decoder.weight is host.model.bert.embeddings.word_embeddings.weight


def test_full_stands_alone(host):
    host.add("whole", Full(), 0)
    host.add("other", Full(), 0)
    host.add("domain", Houlsby(), 0)
    for stack in (["whole", "domain"], ["domain", "whole"], ["whole", "other"]):
        with pytest.raises(InputError, match="only by itself"):
            host.activate(stack)
    with pytest.raises(InputError, match="whole copy"), host.rows(["whole", "domain"]):
        pass


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
def test_full_is_stored_as_a_model_that_transformers_loads(shared, inputs, tmp_path, family):
    from transformers import AutoConfig

    host = shared(family)
    host.add("whole", Full(), 0)
    shake(host, "whole")
    host.activate(["whole"])
    host.save("whole", tmp_path)
    expected = logits(host, inputs)
    host.remove("whole")
    loaded = type(host.model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, expected)
    config = AutoConfig.from_pretrained(tmp_path).to_dict()
    assert any(value == 0.1 for key, value in config.items() if "drop" in key)  # the base's own, not the host's zero
    assert str(host.base_path) not in (tmp_path / "config.json").read_text()


# names, stacks, rows


@pytest.mark.parametrize("name", ["a.b", "", "keys", "encoder", "0", "a b", "__call__", "training/x"])
def test_names_that_would_collide_are_refused(host, name):
    with pytest.raises(InputError, match="cannot name an adapter"):
        host.add(name, Houlsby(), 0)


@pytest.mark.parametrize("name", ["a", "book", "bottle", "lora", "neck_", "10-k"])
def test_names_inside_the_prefix_work(host, inputs, tmp_path, recwarn, name):
    host.add(name, Houlsby(), 0)
    host.add("other", Houlsby(), 1)
    shake(host, name)
    host.activate([name])
    before = logits(host, inputs)
    host.save(name, tmp_path)
    host.remove(name)
    host.load_adapter(name, tmp_path)
    host.activate([name])
    assert torch.equal(logits(host, inputs), before)
    assert not [w for w in recwarn if "prefix" in str(w.message)]


def test_stacks_are_checked(host):
    host.add("domain", Houlsby(), 0)
    with pytest.raises(InputError, match=r"no adapter 'domian'\. Did you mean 'domain'"):
        host.activate(["domian"])
    with pytest.raises(InputError, match="every adapter once"):
        host.activate(["domain", "domain"])
    with pytest.raises(InputError, match="'domain' cannot train: it is not in the stack"):
        host.activate([], train=["domain"])
    with pytest.raises(InputError, match="There is an adapter 'domain' already"):
        host.add("domain", Houlsby(), 0)
    with pytest.raises(InputError, match="There is an adapter 'domain' already"):
        host.copy("domain", "domain")


def test_removing_an_active_adapter_leaves_the_rest_active(host, inputs):
    host.add("domain", Houlsby(), 0)
    host.copy("domain", "task")
    shake(host, "domain")
    host.activate(["domain"])
    expected = logits(host, inputs)
    host.activate(["domain", "task"], train=["task"])
    host.remove("task")
    assert (host.stack, host.names, host.trainable()) == (("domain",), ["domain"], {})
    assert torch.equal(logits(host, inputs), expected)


@every(MIXING)
def test_rows_have_their_own_adapters(host, inputs, kind):
    base = logits(host, inputs)
    with host.rows([None, None]):
        assert torch.equal(logits(host, inputs), base)
    host.add("domain", kind, 0)
    shake(host, "domain")
    host.activate(["domain"], train=["domain"])
    alone = logits(host, inputs)
    with host.rows(["domain", None]):
        mixed = logits(host, inputs)
    torch.testing.assert_close(mixed[0], alone[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mixed[1], base[1], atol=1e-6, rtol=1e-6)
    assert torch.equal(logits(host, inputs), alone)
    assert host.trainable()
    host.activate(())
    with host.rows(["domain", None]):
        assert torch.equal(logits(host, inputs), mixed)
    with host.rows([None, None]):
        assert torch.equal(logits(host, inputs), base)
    with pytest.raises(InputError, match="no adapter 'domains'"), host.rows(["domains", None]):
        pass
    host.model.train()
    with pytest.raises(InputError, match="evaluation mode"), host.rows(["domain", None]):
        pass


@every(ALONE)
def test_kinds_that_cannot_share_a_batch_say_so(host, inputs, kind):
    base = logits(host, inputs)
    host.add("domain", kind, 0)
    shake(host, "domain")
    host.activate(["domain"])
    alone = logits(host, inputs)
    with pytest.raises(InputError, match="cannot share a batch"), host.rows(["domain", None]):
        pass
    assert torch.equal(logits(host, inputs), alone)
    with host.rows([None, None]):
        assert torch.equal(logits(host, inputs), base)


def test_adapter_names_are_never_dropped(host, inputs):
    with pytest.raises(InputError, match=r"host\.rows"):
        host.model(**inputs, adapter_names=["domain", "domain"])


# loading bases


@pytest.mark.parametrize("family", FAMILIES)
def test_the_hook_sees_the_last_hidden_state(shared, inputs, family):
    host = shared(family)
    seen = []
    handle = host.lm_head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    out = logits(host, inputs)
    handle.remove()
    assert seen[0].shape == (2, 7, host.hidden_size)
    with torch.no_grad():
        assert torch.equal(host.lm_head(seen[0]), out)
        inner = getattr(host.model, host.model.base_model_prefix)(**inputs).last_hidden_state
    assert torch.equal(inner, seen[0])


def test_dropout_is_off_unless_asked_for(tiny_base, inputs):
    quiet, loud = Host.load(str(tiny_base("bert"))), Host.load(str(tiny_base("bert")), dropout=True)
    for host in (quiet, loud):
        host.model.train()
    assert torch.equal(logits(quiet, inputs), logits(quiet, inputs))
    assert not torch.equal(logits(loud, inputs), logits(loud, inputs))
    assert quiet.fingerprint == loud.fingerprint


def test_a_half_precision_checkpoint_is_loaded_in_fp32(tiny_base, tmp_path):
    shutil.copytree(tiny_base("bert"), tmp_path, dirs_exist_ok=True)
    save_file({k: v.half() for k, v in load_file(tmp_path / "model.safetensors").items()},
              tmp_path / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
    text = (tmp_path / "config.json").read_text().replace('"dtype": "float32"', '"dtype": "float16"')
    (tmp_path / "config.json").write_text(text)
    host = Host.load(str(tmp_path))
    assert {parameter.dtype for parameter in host.model.parameters()} == {torch.float32}
    assert not host.trainable()


def test_the_packaged_base_goes_by_its_name(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setattr(bases, "files", lambda package: tmp_path)
    with pytest.raises(InputError, match="packaged base 'mini' is missing"):
        Host.load("mini")
    shutil.copytree(tiny_base("bert"), tmp_path / "bases" / "mini")
    host = Host.load("mini")
    assert (host.base_id, host.base_path) == ("mini", str(tmp_path / "bases" / "mini"))
    host.add("domain", Houlsby(), 0)
    host.save("domain", tmp_path / "adapter")
    text = (tmp_path / "adapter" / "adapter_config.json").read_text()
    assert '"base_model_name_or_path": "mini"' in text
    assert str(tmp_path) not in text


def test_bases_that_cannot_be_loaded_say_why(tiny_base, tmp_path):
    from transformers import BertModel

    (tmp_path / "empty").mkdir()
    shutil.copytree(tiny_base("bert"), tmp_path / "headless")
    BertModel.from_pretrained(tiny_base("bert")).save_pretrained(tmp_path / "headless")
    shutil.copytree(tiny_base("bert"), tmp_path / "torn")
    (tmp_path / "torn" / "model.safetensors").write_bytes(b"torn")
    shutil.copytree(tiny_base("bert"), tmp_path / "strange")
    shutil.copytree(tiny_base("bert"), tmp_path / "mute", ignore=shutil.ignore_patterns("tokenizer*"))
    (tmp_path / "strange" / "config.json").write_text('{"model_type": "vit"}')
    for base, message in {
        str(tmp_path / "headles"): "no such folder. Did you mean 'headless'",
        str(tmp_path / "empty"): "no config.json",
        str(tmp_path / "headless"): "no trained language-modelling head: cls",
        str(tmp_path / "torn"): "cannot be loaded",
        str(tmp_path / "mute"): "no tokenizer stored",
        str(tmp_path / "strange"): "'vit' has no language-modelling class",
        "nobody/nothing": "'nobody/nothing' cannot be loaded.*Hub",
    }.items():
        with pytest.raises(InputError, match=message):
            Host.load(base)


def test_loading_writes_nothing_to_the_terminal(tiny_base, capfd):
    host = Host.load(str(tiny_base("bert")))
    host.add("domain", Houlsby(), 0)
    assert capfd.readouterr() == ("", "")
