"""Bases on disk with something wrong in them: one clear message each, and never a silently other base."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from guidebook import InputError, adapt
from guidebook.adapters import checkpoint, quantised
from guidebook.adapters.host import Host
from guidebook.adapters.presets import Full
from guidebook.errors import RunError
from guidebook.inspection.through import loss_on
from tiny import TEXTS, build_tokenizer, tiny_recipe

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"
ANNEX = f"/annex/objects/SHA256E-s12345--{'a' * 64}\n"
WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))


def write_json(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; None removes one."""
    found = json.loads(path.read_text())
    found.update(changes)
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def as_pickle(folder: Path) -> Path:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    return folder / "pytorch_model.bin"


def with_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


def prefixed(prefix: str) -> Callable[[Path], None]:
    return lambda folder: with_tensors(folder, lambda found: {prefix + key: value for key, value in found.items()})


def spoilt(value: float, name: str = "bert.encoder.layer.1.output.dense.weight") -> Callable[[Path], None]:
    def change(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found[name].view(-1)[3] = value
        return found

    return lambda folder: with_tensors(folder, change)


def adapter_beside(folder: Path) -> None:
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    get_peft_model(model, LoraConfig(r=2, target_modules=["query"])).save_pretrained(folder)


def only_an_adapter(folder: Path) -> None:
    adapter_beside(folder)
    (folder / "config.json").unlink()


def quantised_by(method: str, **more: Any) -> Callable[[Path], None]:
    return lambda folder: write_json(folder / "config.json", quantization_config={"quant_method": method, **more})


def pickle_is_pointer(folder: Path) -> None:
    as_pickle(folder).write_text(POINTER)


def pickle_is_cut(folder: Path) -> None:
    as_pickle(folder)
    cut("pytorch_model.bin")(folder)


def shards(folder: Path) -> None:
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="5KB")


def a_shard_is_missing(folder: Path) -> None:
    shards(folder)
    sorted(folder.glob("*.safetensors"))[0].unlink()


def half_the_tensors(folder: Path) -> None:
    with_tensors(folder, lambda found: {key: value for key, value in found.items() if "layer.1" not in key})


def cut(name: str, share: float = 0.5) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: int(len(raw) * share)])

    return change


def written(name: str, content: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text(content)

    return change


def configured(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: write_json(folder / "config.json", **changes)


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "an adapter beside the weights": (adapter_beside, r"adapter_config\.json: an adapter lies beside.*move .* out of"),
    "an adapter instead of a base": (only_an_adapter, r"holds an adapter \(adapter_config\.json\), not a base"),
    "gptq": (quantised_by("gptq", bits=4), r"saved quantised \(gptq;.*not quantised, with quantise"),
    "awq": (quantised_by("awq", bits=4), r"saved quantised \(awq;"),
    "compressed-tensors": (quantised_by("compressed-tensors", config_groups={}), r"\(compressed-tensors;"),
    "fp8": (quantised_by("fp8"), r"saved quantised \(fp8;"),
    "a method nobody knows": (quantised_by("next-year"), r"saved quantised \(next-year;"),
    "weights are an LFS pointer": (written(WEIGHTS, POINTER), f"{WEIGHTS} is a Git LFS pointer.*git lfs pull"),
    "a pickle is an LFS pointer": (pickle_is_pointer, r"pytorch_model\.bin is a Git LFS pointer.*git lfs pull"),
    "the tokenizer is an LFS pointer": (written("tokenizer.json", POINTER), r"tokenizer\.json is a Git LFS pointer"),
    "weights are an annex pointer": (written(WEIGHTS, ANNEX), f"{WEIGHTS} is a git-annex pointer.*git annex get"),
    "weights are a web page": (written(WEIGHTS, "<!DOCTYPE html>"), "cannot be loaded: .*copy it again"),
    "weights are cut": (cut(WEIGHTS), "cannot be loaded: .*copy it again"),
    "a pickle is cut": (
        pickle_is_cut,
        "cannot be loaded",
    ),
    "a shard is missing": (a_shard_is_missing, "cannot be loaded: .*00001-of"),
    "half of the tensors": (half_the_tensors, r"is not complete: bert\.encoder\.layer\.1\..*more tensors"),
    "DistributedDataParallel": (prefixed("module."), r"begin with 'module\.'.*module\.save_pretrained"),
    "torch.compile": (prefixed("_orig_mod."), r"begin with '_orig_mod\.'"),
    "both": (prefixed("module._orig_mod."), r"begin with 'module\._orig_mod\.'"),
    "some other wrapper": (prefixed("student.net."), r"begin with 'student\.net\.'"),
    "NaN": (spoilt(float("nan")), r"the tensor bert\.encoder\.layer\.1\.output\.dense\.weight holds NaN"),
    "infinity": (spoilt(float("inf")), r"the tensor bert\.encoder\.layer\.1\.output\.dense\.weight holds infinity"),
    "NaN in a bias": (
        spoilt(float("nan"), "bert.embeddings.LayerNorm.bias"),
        r"bert\.embeddings\.LayerNorm\.bias holds",
    ),
    "other shapes": (configured(intermediate_size=48), r"is stored with the shape \(\d+.*config\.json expects \(48"),
    "config.json is cut": (cut("config.json"), "cannot be loaded: .*config"),
    "config.json is a list": (written("config.json", "[]"), "cannot be loaded: "),
    "config.json without an architecture": (written("config.json", "{}"), "cannot be loaded: "),
    "heads that do not divide": (configured(num_attention_heads=3), "cannot be loaded: "),
    "no heads": (configured(num_attention_heads=0), "cannot be loaded: "),
    "sizes that are text": (configured(hidden_size="big"), "cannot be loaded: "),
    "an activation nobody knows": (configured(hidden_act="wobble"), "cannot be loaded: .*wobble"),
    "the tokenizer is cut": (cut("tokenizer.json"), "cannot be loaded: "),
    "the tokenizer is no tokenizer": (written("tokenizer.json", '{"model": 3}'), "cannot be loaded: "),
    "tokenizer_config.json is a list": (written("tokenizer_config.json", "[]"), "cannot be loaded: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_base_is_one_clear_error(tiny_base: Any, tmp_path: Path, name: str) -> None:
    change, message = BROKEN[name]
    folder = tmp_path / "base"
    shutil.copytree(tiny_base("bert"), folder)
    change(folder)
    with pytest.raises(InputError, match=message) as caught:
        Host.load(str(folder), needs_lm_head=False)
    assert len(str(caught.value)) < 700  # one message, not a library's report
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["bin only", "shards", "an unused pointer"])
def test_a_base_that_is_only_stored_otherwise_loads(tiny_base: Any, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_base("bert"), folder)
    {
        "bin only": as_pickle,
        "shards": shards,
        "an unused pointer": written("tf_model.h5", POINTER),
    }[name](folder)
    assert Host.load(str(folder)).fingerprint == Host.load(str(tiny_base("bert"))).fingerprint


def test_weights_beyond_float16_name_the_types_that_hold_them(tiny_base: Any, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_base("bert"), folder)
    spoilt(1e6)(folder)
    Host.load(str(folder), "bfloat16")
    with pytest.raises(InputError, match=r"layer\.1\.output\.dense\.weight holds infinity as it is held in float16"):
        Host.load(str(folder), "float16")


def test_whatever_a_library_raises_is_one_error() -> None:
    class PanicException(BaseException):
        """What Rust's bindings raise."""

    raised: list[BaseException] = [ImportError("no optimum"), KeyError("x"), PanicException("index 3"), EOFError()]
    for error in raised:
        with pytest.raises(InputError, match="Base 'b' cannot be loaded: "), checkpoint.readable("b", "b"):
            raise error
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory")):
        with pytest.raises(RunError, match="does not fit into memory"), checkpoint.readable("b", "b"):
            raise error
    with pytest.raises(KeyboardInterrupt), checkpoint.readable("b", "b"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["spiece.model", "tokenizer.model"])
def test_a_tokenizer_that_needs_more_packages_names_them(
    tiny_base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "base"
    family = "t5" if name == "spiece.model" else "llama"
    shutil.copytree(tiny_base(family), folder)
    (folder / "tokenizer.json").unlink()
    (folder / name).write_bytes(b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    kind = "T5Tokenizer" if family == "t5" else "LlamaTokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    monkeypatch.setattr(checkpoint, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install sentencepiece protobuf"):
        Host.load(str(folder), needs_lm_head=False)


SAVED = {"4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "8bit": {"load_in_8bit": True}}


@pytest.mark.parametrize("how", SAVED)
def test_a_base_saved_by_bitsandbytes_without_the_package(
    tiny_base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    shutil.copytree(tiny_base("llama"), tmp_path / "base")
    quantised_by("bitsandbytes", **SAVED[how])(tmp_path / "base")
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"saved in {how} by bitsandbytes.*pip install 'guidebook\[quant\]'"):
        Host.load(str(tmp_path / "base"))


def save_quantised(base: Path, how: Any, folder: Path) -> Path:
    pytest.importorskip("bitsandbytes")
    held: Any = Host.load(str(base), quantise=how)
    held.model.save_pretrained(folder)
    held.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("how", SAVED)
def test_a_base_saved_quantised_is_held_so_and_no_other_way(tiny_base: Any, tmp_path: Path, how: Any) -> None:
    folder = save_quantised(tiny_base("bert"), how, tmp_path / "base")
    other = {"4bit": "8bit", "8bit": "4bit"}[how]
    with pytest.raises(InputError, match=f"was saved in {how}, found quantise: {other}. Set quantise: {how}"):
        Host.load(str(folder), quantise=other)  # type: ignore[arg-type]
    host = Host.load(str(folder))
    assert host.quantise == how
    assert host.fingerprint == Host.load(str(folder), quantise=how).fingerprint
    with pytest.raises(InputError, match=f"rounding of quantise: {how}"):
        host.add("domain", Full(), 0)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("how", SAVED)
def test_a_base_saved_quantised_is_trained_on_and_recorded_so(
    tiny_base: Any, tmp_path: Path, family: str, how: Any
) -> None:
    folder = save_quantised(tiny_base(family), how, tmp_path / "base")
    with pytest.raises(InputError, match=f"rounding of quantise: {how}"):
        adapt(tiny_recipe(folder, method="source_only", adapter="full"), tmp_path / "full")
    book = adapt(tiny_recipe(folder, method="source_only", adapter="lora"), tmp_path / "book")
    assert book.meta["base"]["quantise"] == how
    assert book.predict(TEXTS).shape == (len(TEXTS),)


def test_a_masked_base_without_a_mask_token_trains_without_the_losses_it_cannot_have(
    tiny_base: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_base("bert"), folder)
    write_json(folder / "tokenizer_config.json", mask_token=None)
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    host = Host.load(str(folder))
    assert host.tokenizer.mask_token_id is None
    assert loss_on(host, TEXTS) is None
    assert loss_on(Host.load(str(tiny_base("bert"))), TEXTS) is not None
    book = adapt(tiny_recipe(folder, method="source_only"), tmp_path / "book")
    scores = book.meta["scores"]["targets"][0]["validators"]["source_only"]
    assert scores
    assert "mixed_loss" not in scores
    with pytest.raises(InputError, match="no mask token"):
        adapt(tiny_recipe(folder, method="domain_fusion"), tmp_path / "other")


SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
COUNTED: dict[str, dict[str, Any]] = {
    "roberta": {},
    "xlm-roberta": {},
    "camembert": {},
    "mpnet": {},
    "longformer": {"attention_window": 4},
    "xlm-roberta-xl": {},
    "xmod": {"languages": ["en"], "default_language": "en"},
    "data2vec-text": {},
    "ibert": {},
    "roberta-prelayernorm": {},
    "luke": {"entity_vocab_size": 4, "entity_emb_size": 8},
    "esm": {"position_embedding_type": "absolute", "mask_token_id": 4},
    "bert": {},
    "electra": {"embedding_size": 8},
}


@pytest.mark.parametrize("family", COUNTED)
@pytest.mark.parametrize("padding", [0, 1, 5])
def test_the_longest_row_that_is_allowed_is_the_longest_that_runs(family: str, padding: int) -> None:
    from guidebook.adapters.bases import positions_of

    config = transformers.AutoConfig.for_model(
        family, vocab_size=40, max_position_embeddings=20, pad_token_id=padding, **SIZES, **COUNTED[family]
    )
    model = transformers.AutoModelForMaskedLM.from_config(config).eval()
    positions = positions_of(model)
    assert positions is not None
    whole = torch.full((1, positions), 7)
    with torch.no_grad():
        model(input_ids=whole, attention_mask=torch.ones_like(whole))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, positions + 1), 7), attention_mask=torch.ones(1, positions + 1))


def longformer(folder: Path) -> tuple[Path, dict[str, str]]:
    tokenizer = build_tokenizer("roberta")
    config = transformers.LongformerConfig(
        vocab_size=len(tokenizer), max_position_embeddings=66, attention_window=[8], pad_token_id=0, **SIZES
    )
    transformers.LongformerForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, {
        "layers": r"longformer\.encoder\.layer\.(\d+)",
        "attention": r"attention\.output\.dense",
        "feed_forward": r"output\.dense",
        "lm_head": "lm_head",
    }


def led(folder: Path) -> tuple[Path, dict[str, str]]:
    tokenizer = build_tokenizer("bart")
    sides = {
        f"{side}_{key}": value
        for side in ("encoder", "decoder")
        for key, value in {"layers": 1, "attention_heads": 2, "ffn_dim": 32}.items()
    }
    config = transformers.LEDConfig(
        vocab_size=len(tokenizer), d_model=16, attention_window=8, max_encoder_position_embeddings=64,
        max_decoder_position_embeddings=48, pad_token_id=0, decoder_start_token_id=3, bos_token_id=2, eos_token_id=3,
        **sides,
    )  # fmt: skip
    transformers.LEDForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, {
        "layers": r"led\.(?:encoder|decoder)\.layers\.(\d+)",
        "attention": r"self_attn\.(?:output|out_proj)",
        "feed_forward": "fc2",
        "lm_head": "lm_head",
    }


@pytest.mark.parametrize("build", [longformer, pytest.param(led, marks=pytest.mark.slow)])
def test_attention_that_changes_its_projections_in_place_trains_with_lora(tmp_path: Path, build: Any) -> None:
    folder, modules = build(tmp_path / "base")
    host = Host.load(str(folder), modules=modules)
    assert host.positions == (65 if build is longformer else 48)
    adapter = {"kind": "lora", "rank": 2, "modules": modules}
    book = adapt(tiny_recipe(folder, method="source_only", adapter=adapter), tmp_path / "book")
    assert book.predict(TEXTS).shape == (len(TEXTS),)


def test_messages_name_the_base_as_the_user_did(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'none'}: there is no such folder")):
        Host.load(str(tmp_path / "none"))
