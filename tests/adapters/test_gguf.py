"""GGUF files as bases: the numbers of the file, converted once, and what is refused."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import guidebook as gb
from guidebook.adapters.gguf import converted
from guidebook.adapters.gguf_header import read_header
from guidebook.adapters.gguf_rope import llama3_divisors
from guidebook.adapters.host import Host
from guidebook.errors import InputError
from tiny import TEXTS, build_tokenizer, tiny_recipe
from tiny_gguf import TEMPLATE, tiny_llama, write_gguf


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_whole_numbers_are_those_of_the_source(kind, tied, tmp_path):
    source = tiny_llama(tied)
    host = Host.load(str(write_gguf(tmp_path / "tiny.gguf", kind, source)))
    assert host.quantised_from == kind
    found = host.model.state_dict()
    assert found.keys() == source.state_dict().keys()
    for name, value in source.state_dict().items():
        assert torch.equal(found[name], value), name
    ids = torch.tensor([[5, 7, 11, 13]])
    with torch.no_grad():
        assert torch.allclose(host.model(ids).logits, source(ids).logits, atol=1e-5)


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_0", "Q4_0", "Q4_1"])
def test_quantised_numbers_are_unpacked(kind, tmp_path):
    import gguf

    source = tiny_llama()
    host = Host.load(str(write_gguf(tmp_path / "tiny.gguf", kind, source)))
    assert host.quantised_from == kind
    number = gguf.GGMLQuantizationType[kind]
    for name, value in source.state_dict().items():
        expected = value
        if value.ndim > 1:
            packed = gguf.quants.quantize(value.numpy(), number)
            expected = torch.from_numpy(gguf.quants.dequantize(packed, number))
        assert torch.equal(host.model.state_dict()[name], expected), name


def test_tokenizer_and_chat_template_are_kept(tmp_path):
    tokenizer = Host.load(str(write_gguf(tmp_path / "tiny.gguf"))).tokenizer
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer(TEXTS)["input_ids"] == build_tokenizer("llama")(TEXTS)["input_ids"]
    assert tokenizer.eos_token_id == 0


def test_a_base_is_one_by_its_content_whatever_it_is_called(tmp_path, cache):
    first = write_gguf(tmp_path / "one.gguf", "Q8_0")
    (tmp_path / "folder").mkdir()
    second = tmp_path / "folder" / "two.GGUF"
    shutil.copy(first, second)
    assert converted(first) == converted(second)
    assert len(list((cache / "bases").glob("*/config.json"))) == 1
    prints = {Host.load(str(place)).fingerprint for place in (first, second, tmp_path / "folder")}
    assert len(prints) == 1
    assert Host.load(str(first), "bfloat16").fingerprint not in prints


def test_it_is_converted_once(tmp_path, cache):
    path = write_gguf(tmp_path / "tiny.gguf")
    folder = converted(path)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert converted(path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    (folder / "COMPLETE").unlink()  # as if the process had been killed before it was whole
    assert converted(path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns != before


def test_several_in_a_folder_are_named(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"2 GGUF files.*a\.gguf, b\.gguf"):
        Host.load(str(tmp_path))


def test_a_file_that_is_not_there(tmp_path):
    (tmp_path / "tiny-q8.gguf").touch()
    with pytest.raises(InputError, match=r"there is no such file\. Did you mean 'tiny-q8\.gguf'"):
        Host.load(str(tmp_path / "tiny-q4.gguf"))
    with pytest.raises(InputError, match="there is no such file"):
        Host.load("nowhere.gguf")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not a GGUF file"),
        (b"GG", "not a GGUF file"),
        (b"GGUF", "damaged"),
        (b"PK\x03\x04 a zip file", "not a GGUF file"),
        (b"ggjt\x03\x00\x00\x00", "older than GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60), "cut short or damaged"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 0, 2**62), "cut short or damaged"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 9, 1), "unknown type 9"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"\xff" + struct.pack("<I", 77), "not UTF-8"),
    ],
)
def test_what_is_no_gguf_file_is_said(content, told, tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        Host.load(str(path))
    assert str(path) in str(caught.value)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole = write_gguf(tmp_path / "whole.gguf", "Q8_0").read_bytes()
    path = tmp_path / "cut.gguf"
    for size in [*range(0, 4096, 61), *range(4096, len(whole) - 64, 4099)]:
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"cut short|damaged|not a GGUF"):
            read_header(path)
    path.write_bytes(whole)
    assert read_header(path).most_common_type == "Q8_0"


def test_a_header_with_any_byte_changed_is_read_or_refused(tmp_path):
    whole = write_gguf(tmp_path / "whole.gguf", "F16").read_bytes()
    path = tmp_path / "changed.gguf"
    for place in [*range(0, 1200, 7), *range(1200, len(whole), 997)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(InputError):  # and nothing else, in no time
            read_header(path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"architecture": "hyena"}, r"architecture 'hyena'.*It reads: .*llama.*qwen2"),
        ({"architecture": "clip"}, "mmproj"),
        ({"facts": {"general.type": "mmproj"}}, "mmproj"),
        ({"facts": {"general.type": "adapter"}}, "type is 'adapter'"),
        ({"facts": {"split.count": 3}}, "one of the 3 parts of a split model"),
        ({"tokenizer": False}, "no tokenizer"),
        ({"without": ("blk.1.ffn_up.weight",)}, r"1 tensors of the model are not in the file.*up_proj"),
    ],
)
def test_files_of_something_else_are_refused(changes, told, tmp_path):
    path = write_gguf(tmp_path / "x.gguf", **changes)
    with pytest.raises(InputError, match=told):
        Host.load(str(path))


def test_a_part_of_a_split_model_is_told_by_its_name(tmp_path):
    path = write_gguf(tmp_path / "x-00001-of-00003.gguf")
    with pytest.raises(InputError, match="3 parts of a split model"):
        Host.load(str(path))


def test_a_vocabulary_alone_is_refused(tmp_path):
    import gguf

    from tiny_gguf import add_tokenizer

    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    add_tokenizer(writer, None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(InputError, match="vocabulary only"):
        Host.load(str(tmp_path / "x.gguf"))


def test_numbers_that_are_none_are_refused(tmp_path):
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = float("nan")
    with pytest.raises(InputError, match="holds NaN"):
        Host.load(str(write_gguf(tmp_path / "x.gguf", "F16", model)))


def test_it_says_what_it_was_converted_from(tmp_path):
    folder = converted(write_gguf(tmp_path / "tiny.gguf", "Q8_0"))
    assert json.loads((folder / "gguf.json").read_text())["file"] == "tiny.gguf"
    assert Host.load(str(Path(folder))).quantised_from == "Q8_0"


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", "Q8_0")


def test_classification_on_one_from_end_to_end(quantised, tmp_path):
    book = gb.adapt(tiny_recipe(quantised, method="source_only"), tmp_path / "book")
    assert book.meta["base"]["quantised_from"] == "Q8_0"
    assert book.meta["base"]["id"] == str(quantised)
    card = (tmp_path / "book" / "README.md").read_text()
    assert "A quantised base is another base than the original" in card
    assert f'resolve_base("{quantised}")[0]' in card
    assert "base_model:" not in card
    records = [json.loads(line) for line in (tmp_path / "book" / "records.jsonl").read_text().splitlines()]
    assert {record["base_quantised_from"] for record in records} == {"Q8_0"}
    again = gb.load(tmp_path / "book")
    assert np.array_equal(again.predict_proba(TEXTS, domain="kitchen"), book.predict_proba(TEXTS, domain="kitchen"))


def test_writing_on_one_from_end_to_end(quantised, tmp_path):
    documents = [gb.Domain("filings", [f"{text} {number}" for number in range(2) for text in TEXTS])]
    train = {"tokens_per_batch": 96, "max_length": 16, "dtype": "float32", "fuse": {"tokens": 250}}
    recipe = gb.Recipe(
        base=str(quantised), task="causal_lm", method="target_mlm", adapter="lora", targets=documents, train=train
    )
    book = gb.adapt(recipe, tmp_path / "book")
    assert "A quantised base is another base" in (tmp_path / "book" / "README.md").read_text()
    again = gb.load(tmp_path / "book")
    sampling = gb.Sampling(max_length=20)
    assert again.generate(["the plot"], sampling) == book.generate(["the plot"], sampling)


def test_a_recipe_names_a_file_beside_it(quantised, tmp_path):
    shutil.copy(quantised, tmp_path / "tiny.gguf")
    (tmp_path / "recipe.yaml").write_text("base: tiny.gguf\nsource: a.csv\ntargets: b.csv\n")
    assert gb.load_recipe(tmp_path / "recipe.yaml").base == str(tmp_path / "tiny.gguf")


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_positions_stretched_as_in_llama_3_are_kept(factor, tmp_path):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    source = tiny_llama()
    stretch = {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    source.config.rope_parameters |= {**stretch, "original_max_position_embeddings": 8192}
    divisors = llama3_divisors(source.config.rope_parameters["rope_theta"], factor, source.config.head_dim)
    path = write_gguf(tmp_path / "x.gguf", more={"rope_freqs.weight": divisors.astype(np.float32)})
    host = Host.load(str(path))
    assert host.config.rope_parameters == source.config.rope_parameters
    expected = ROPE_INIT_FUNCTIONS["llama3"](source.config, "cpu")[0]
    assert torch.allclose(host.model.model.rotary_emb.inv_freq, expected)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
            {"rope_type": "linear", "factor": 4.0},
        ),
        ({"llama.rope.scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        (
            {
                "llama.rope.scaling.type": "yarn",
                "llama.rope.scaling.factor": 4.0,
                "llama.rope.scaling.original_context_length": 16,
            },
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        ),
        ({"llama.rope.scaling.type": "none"}, {"rope_type": "default"}),
    ],
)
def test_stretched_positions_are_kept(facts, expected, tmp_path):
    found = Host.load(str(write_gguf(tmp_path / "x.gguf", facts=facts))).config.rope_parameters
    assert expected.items() <= found.items()


@pytest.mark.parametrize(
    "changes",
    [
        {"more": {"rope_freqs.weight": np.linspace(1, 3, 4).astype(np.float32)}},
        {"more": {"rope_factors_long.weight": np.ones(4, np.float32)}},
        {"facts": {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}},
        {"facts": {"llama.rope.scaling.type": "longrope"}},
    ],
)
def test_stretched_positions_that_cannot_be_told_are_refused(changes, tmp_path):
    with pytest.raises(InputError, match="rotary positions are stretched"):
        Host.load(str(write_gguf(tmp_path / "x.gguf", **changes)))


def test_tensors_that_transformers_would_leave_out_are_refused(tmp_path):
    bias = {"blk.0.attn_q.bias": np.ones(32, np.float32)}
    with pytest.raises(InputError, match="some would be left out"):
        Host.load(str(write_gguf(tmp_path / "x.gguf", more=bias)))
