"""The same weights give the same outputs as AdapterHub's package gave, and its files are read and written.

The fixture was made with that package by `tests/fixtures/adapterhub/make.py`.
"""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from guidebook.adapters.adapterhub import export_adapterhub, import_adapterhub
from guidebook.adapters.bases import Base
from guidebook.adapters.host import Host
from guidebook.adapters.invertible import Invertible
from guidebook.adapters.presets import Houlsby, LoRA
from guidebook.errors import InputError

FIXTURE = Path(__file__).parent.parent / "fixtures" / "adapterhub"
CASES = sorted(str(path.parent.relative_to(FIXTURE)) for path in FIXTURE.glob("*/*/adapter_config.json"))
KINDS = {
    "compacter_plus": "pfeiffer",
    "pfeiffer_two": "pfeiffer",
    "pfeiffer_invertible": "invertible+pfeiffer",
    "houlsby_invertible": "houlsby+invertible",
}


@pytest.fixture(scope="module")
def hosts():
    """family -> host without adapters, and what the package's model gave."""
    import transformers

    classes = {
        "bert": transformers.BertForMaskedLM,
        "roberta": transformers.RobertaForMaskedLM,
        "distilbert": transformers.DistilBertForMaskedLM,
        "gpt2": transformers.GPT2LMHeadModel,
    }
    made = {}

    def get(family: str):
        if family not in made:
            model = classes[family].from_pretrained(FIXTURE / family).eval()
            made[family] = (
                Host(Base(model, None, model.config, family, family)),
                load_file(FIXTURE / family / "outputs.safetensors"),
            )
        host, expected = made[family]
        for name in host.names:
            host.remove(name)
        return host, expected

    return get


@torch.no_grad()
def run(host, expected):
    """Logits, and the last hidden state as it reaches the head."""
    inputs = {name: expected[name] for name in ("input_ids", "attention_mask")}
    inner = getattr(host.model, host.model.base_model_prefix)(**inputs).last_hidden_state
    return host.model(**inputs).logits, inner


def same(host, expected, name):
    mask = expected["attention_mask"].bool()
    for ours, what in zip(run(host, expected), ("logits", "hidden"), strict=True):
        torch.testing.assert_close(ours[mask], expected[f"{name}.{what}"][mask], atol=1e-5, rtol=1e-5)


def test_the_fixture_covers_what_it_should():
    for family in ("bert", "roberta"):
        assert {case.partition("/")[2] for case in CASES if case.startswith(f"{family}/")} >= {
            "houlsby", "pfeiffer", "parallel", "compacter", "houlsby_invertible", "pfeiffer_invertible"
        }  # fmt: skip
    assert json.loads((FIXTURE / "versions.json").read_text())["adapters"] == "1.3.0"
    size = sum(path.stat().st_size for path in FIXTURE.rglob("*") if path.is_file())
    assert size < 1_000_000
    for path in FIXTURE.rglob("*.json"):
        assert "/" not in json.loads(path.read_text()).get("model_name", ""), path


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "gpt2"])
def test_the_bases_agree(hosts, family):
    same(*hosts(family), "base")


@pytest.mark.parametrize("case", CASES)
def test_same_weights_same_outputs(hosts, tmp_path, case):
    family, _, name = case.partition("/")
    host, expected = hosts(family)
    kind = import_adapterhub(FIXTURE / case, tmp_path)
    assert kind == KINDS.get(name, name)
    host.load_adapter("one", tmp_path)
    assert host.kind_of("one") == kind
    host.activate(["one"])
    same(host, expected, name)
    assert not torch.allclose(run(host, expected)[0], expected["base.logits"], atol=1e-2)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_stacks_agree(hosts, tmp_path, family):
    host, expected = hosts(family)
    for name in ("pfeiffer", "pfeiffer_two"):
        import_adapterhub(FIXTURE / family / name, tmp_path / name)
        host.load_adapter(name, tmp_path / name)
    host.activate(["pfeiffer", "pfeiffer_two"])
    same(host, expected, "stack")
    host.activate(["pfeiffer_two", "pfeiffer"])
    assert not torch.allclose(run(host, expected)[0], expected["stack.logits"], atol=1e-2)


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(tmp_path, case):
    name = case.partition("/")[2]
    import_adapterhub(FIXTURE / case, tmp_path / "ours")
    export_adapterhub(tmp_path / "ours", tmp_path / "theirs", name)
    first, second = (load_file(folder / "adapter.safetensors") for folder in (FIXTURE / case, tmp_path / "theirs"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    known, made = (
        json.loads((folder / "adapter_config.json").read_text()) for folder in (FIXTURE / case, tmp_path / "theirs")
    )
    assert known["model_type"] == made["model_type"]
    drawn = ("init_weights", "reduction_factor", "leave_out", "inv_adapter_reduction_factor")
    settings = {key: value for key, value in known["config"].items() if key not in drawn}
    settings["non_linearity"] = made["config"]["non_linearity"]  # two words for one function
    parallel = settings["is_parallel"]
    assert {key: value for key, value in made["config"].items() if key not in drawn} == settings
    assert int(16 // made["config"]["reduction_factor"]) == int(16 // known["config"]["reduction_factor"])
    assert set(range(2)) & set(made["config"]["leave_out"]) == set(known["config"]["leave_out"])
    assert parallel == (name == "parallel")


def test_what_was_trained_here_comes_back_bitwise(tiny_base, tmp_path):
    host = Host.load(str(tiny_base("bert")))
    host.add("one", Houlsby(width=3, layers="top 2"), 5)
    host.save("one", tmp_path / "ours")
    export_adapterhub(tmp_path / "ours", tmp_path / "theirs", "books")
    import_adapterhub(tmp_path / "theirs", tmp_path / "again")
    host.load_adapter("two", tmp_path / "again")
    one, two = host.state("one"), host.state("two")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    theirs = load_file(tmp_path / "theirs" / "adapter.safetensors")
    assert "bert.encoder.layer.1.output.adapters.books.adapter_up.weight" in theirs
    for convert in (import_adapterhub, export_adapterhub):
        with pytest.raises(InputError, match="there is something already"):
            convert(tmp_path / "ours", tmp_path / "theirs")
    with pytest.raises(InputError, match="cannot name an adapter"):
        export_adapterhub(tmp_path / "ours", tmp_path / "new", "a.b")


def copied(case: str, folder: Path, **changes) -> Path:
    shutil.copytree(FIXTURE / case, folder)
    place = folder / "adapter_config.json"
    facts = json.loads(place.read_text())
    facts["config"] |= changes
    place.write_text(json.dumps(facts))
    return folder


@torch.no_grad()
def test_bin_files_are_read_without_running_anything(hosts, tmp_path):
    folder = copied("bert/houlsby", tmp_path / "bin")
    tensors = load_file(folder / "adapter.safetensors")
    (folder / "adapter.safetensors").unlink()
    torch.save({name.removeprefix("bert."): value for name, value in tensors.items()}, folder / "pytorch_adapter.bin")
    import_adapterhub(folder, tmp_path / "out")
    host, expected = hosts("bert")
    host.load_adapter("one", tmp_path / "out")
    host.activate(["one"])
    same(host, expected, "houlsby")

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    (folder / "pytorch_adapter.bin").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(InputError, match=r"pytorch_adapter\.bin holds more than tensors, and nothing of it was run"):
        import_adapterhub(folder, tmp_path / "evil")
    assert not (tmp_path / "touched").exists()
    assert not (tmp_path / "evil").exists()


def test_files_of_before_are_read(hosts, tmp_path):
    """adapter-transformers: other names of modules and of activations, a nested invertible adapter."""
    folder = copied("bert/pfeiffer_invertible", tmp_path / "old")
    place = folder / "adapter_config.json"
    facts = json.loads(place.read_text())
    facts["config"] = {
        "MH_Adapter": False, "Output_Adapter": True, "LN_before": False, "LN_after": False, "leave_out": [],
        "original_ln_before": True, "original_ln_after": True, "residual_before_ln": True, "reduction_factor": 4,
        "non_linearity": "relu", "adapter_residual_before_ln": False,
        "invertible_adapter": {"block_type": "nice", "non_linearity": "relu", "reduction_factor": 2},
    }  # fmt: skip
    del facts["version"]
    place.write_text(json.dumps(facts))
    tensors = {
        name.replace(".output.adapters.", ".output.layer_text_lang_adapters.").replace(
            ".invertible_adapters.", ".invertible_lang_adapters."
        ): value
        for name, value in load_file(folder / "adapter.safetensors").items()
    }
    save_file(tensors, folder / "adapter.safetensors")
    assert import_adapterhub(folder, tmp_path / "out") == "invertible+pfeiffer"
    host, expected = hosts("bert")
    host.load_adapter("one", tmp_path / "out")
    host.activate(["one"])
    same(host, expected, "pfeiffer_invertible")
    facts["config"]["non_linearity"] = "gelu"
    place.write_text(json.dumps(facts))
    import_adapterhub(folder, tmp_path / "gelu")
    assert '"activation": "gelu_new"' in (tmp_path / "gelu/pfeiffer/adapter_config.json").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ln_after": True}, "ln_after is True, which no kind of guidebook computes"),
        ({"use_gating": True}, "use_gating is True"),
        ({"scaling": "learned"}, "scaling is 'learned'"),
        ({"non_linearity": "leakyrelu"}, "unknown non_linearity 'leakyrelu'. Did you mean 'relu'"),
        ({"original_ln_before": True}, "none of guidebook's kinds"),
        ({"is_parallel": True}, "none of guidebook's kinds"),
        ({"phm_layer": True, "shared_W_phm": True}, "shared_w_phm is True"),
    ],
)
def test_what_no_kind_computes_is_refused(tmp_path, changes, message):
    folder = copied("bert/houlsby", tmp_path / "in", **changes)
    with pytest.raises(InputError, match=message):
        import_adapterhub(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_and_strange_folders_are_named(tmp_path, tiny_base):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"adapter_config\.json is not the configuration of an AdapterHub adapter"):
        import_adapterhub(empty, tmp_path / "out")
    folder = copied("bert/houlsby", tmp_path / "in")
    (folder / "adapter.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"adapter\.safetensors cannot be read"):
        import_adapterhub(folder, tmp_path / "out")
    (folder / "adapter.safetensors").unlink()
    with pytest.raises(InputError, match=r"there are no weights, none of adapter\.safetensors"):
        import_adapterhub(folder, tmp_path / "out")
    save_file(
        {"bert.encoder.layer.0.attention.self.query.loras.x.lora_A": torch.ones(1)}, folder / "adapter.safetensors"
    )
    with pytest.raises(InputError, match="holds no bottleneck adapter"):
        import_adapterhub(folder, tmp_path / "out")
    facts = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**facts, "model_type": "brt"}))
    with pytest.raises(InputError, match=r"architecture 'brt' are not read\. Did you mean 'bert'"):
        import_adapterhub(folder, tmp_path / "out")
    host = Host.load(str(tiny_base("bert")))
    for kind in (LoRA(rank=1), Invertible()):
        host.add("one", kind, 0)
        host.save("one", tmp_path / kind.kind)
        host.remove("one")
        with pytest.raises(InputError, match=f"kind {kind.kind} has no like in AdapterHub's package"):
            export_adapterhub(tmp_path / kind.kind, tmp_path / "out")
    assert not (tmp_path / "out").exists()
