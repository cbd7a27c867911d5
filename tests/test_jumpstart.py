import json

import pytest
import yaml

from guidebook.cli.main import main
from guidebook.errors import InputError
from guidebook.jumpstart import translate
from guidebook.recipe import load_recipe

HANDS_ON = {  # as the hands-on writes them: strings
    "epoch": "3",
    "learning_rate": "6e-06",
    "per_device_train_batch_size": "4",
    "per_device_eval_batch_size": "8",
    "max_input_length": "512",
    "max_train_samples": "-1",
    "max_val_samples": "50",
    "validation_split_ratio": "0.1",
    "train_data_split_seed": "7",
    "preprocessing_num_workers": "None",
    "instruction_tuned": "False",
    "int8_quantization": "False",
    "enable_fsdp": "True",
    "gradient_checkpointing": "True",
    "warmup_ratio": "0.1",
    "seed": "10",
}


def made(parameters, **settings):
    return translate(parameters, base="mini-gptj", targets=["train"], **settings)


def test_the_hands_on_becomes_a_recipe_one_by_one():
    found = made(HANDS_ON)
    assert found.recipe == {
        "task": {
            "kind": "causal_lm", "max_validation_documents": 50, "validation_split_ratio": 0.1, "split_seed": 7,
        },
        "base": "mini-gptj",
        "targets": ["train"],
        "adapter": {"kind": "houlsby"},
        "train": {
            "fuse": {"epochs": 3.0, "warmup": 0.1, "learning_rate": 3.6e-5},
            "gradient_checkpointing": True,
            "max_length": 512,
            "tokens_per_batch": 2048,
        },
        "seed": 10,
    }  # fmt: skip
    assert [line.partition(":")[0] for line in found.unsupported] == [
        "per_device_eval_batch_size", "preprocessing_num_workers", "enable_fsdp=True",
    ]  # fmt: skip
    assert "torchrun" in found.unsupported[-1]
    assert not found.unknown


def test_a_learning_rate_for_all_weights_is_scaled_and_said():
    found = made({"learning_rate": 1e-5})
    assert found.recipe["train"]["fuse"]["learning_rate"] == pytest.approx(6e-5)
    assert any("multiplied by 6" in note for note in found.notes)
    assert made({"learning_rate": 1e-5}, learning_rate=2e-4).recipe["train"]["fuse"]["learning_rate"] == 2e-4
    lora = made({"learning_rate": "1e-4", "lora_r": "8", "lora_alpha": 32, "lora_dropout": 0.05})
    assert lora.recipe["train"]["fuse"]["learning_rate"] == 1e-4  # it was meant for adapters
    assert lora.recipe["adapter"] == {"kind": "lora", "rank": 8, "alpha": 32.0, "dropout": 0.05}
    assert not any("multiplied" in note for note in lora.notes)


def test_batches_are_counted_in_tokens_of_a_step():
    found = made({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_input_length": -1})
    assert found.recipe["train"] == {"max_length": 1024, "tokens_per_batch": 8192, "micro_batches": 4}
    assert any("-1 means 1024" in note for note in found.notes)


def test_a_base_in_eight_bits():
    assert made({"int8_quantization": "True"}).recipe["quantise"] == "8bit"
    assert "quantise" not in made({"int8_quantization": "False"}).recipe


def test_what_is_unknown_or_unsupported_is_named():
    found = made({"learning_rat": 1, "fp16": "True", "early_stopping_threshold": 3, "zzz": 1})
    assert found.unknown == [
        "learning_rat: no such parameter. Did you mean 'learning_rate'?",
        "zzz: no such parameter.",
    ]
    assert [line.partition(":")[0] for line in found.unsupported] == [
        "fp16=True",
        "early_stopping_threshold",
    ]


@pytest.mark.parametrize(("name", "value"), [("epoch", "three"), ("seed", "1.5"), ("bf16", "maybe"), ("lora_r", True)])
def test_values_of_another_type_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        made({name: value})


def test_the_command_prints_a_recipe_that_loads(tmp_path, capsys):
    path = tmp_path / "params.json"
    path.write_text(json.dumps({**HANDS_ON, "epok": 1}))
    assert main(["recipe", "jumpstart", str(path), "--base", "mini", "--target", "filings"]) == 0
    out = capsys.readouterr()
    assert "# unknown: epok: no such parameter. Did you mean 'epoch'?" in out.out
    assert "multiplied by 6" in out.err
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(out.out)
    assert yaml.safe_load(out.out)["targets"] == ["filings"]
    assert load_recipe(recipe).train.fuse.epochs == 3


@pytest.mark.parametrize(
    ("parameters", "patience"),
    [
        ({"early_stopping": "False", "early_stopping_patience": "3"}, None),
        ({"early_stopping": False}, None),
        ({"early_stopping": "True", "early_stopping_patience": "5"}, 5),
        ({"early_stopping": "true"}, 3),
        ({"early_stopping_patience": 4}, 4),
        ({}, None),
    ],
)
def test_a_patience_counts_unless_early_stopping_is_off(parameters, patience):
    found = made(parameters)
    assert found.recipe.get("train", {}).get("fuse", {}).get("patience") == patience
    assert (found.unsupported, found.unknown) == ([], [])


def test_every_parameter_of_the_hands_on_is_known():
    defaults = {
        "max_steps": "-1", "warmup_steps": "0", "train_from_scratch": "False", "dataloader_drop_last": "False",
        "dataloader_num_workers": "0", "label_smoothing_factor": "0.0",
    }  # fmt: skip
    found = made(defaults)
    assert (found.unsupported, found.unknown) == ([], [])
    changed = made({**dict.fromkeys(defaults, "1"), "train_from_scratch": "True", "logging_first_step": "True"})
    assert len(changed.unsupported) == 7
    assert changed.unknown == []


@pytest.mark.parametrize(("text", "found"), [("[1]", "list"), ("{", "not JSON"), (None, "cannot be read")])
def test_files_that_are_no_parameters(tmp_path, capsys, text, found):
    path = tmp_path / "params.json"
    if text is not None:
        path.write_text(text)
    assert main(["recipe", "jumpstart", str(path)]) == 2
    assert found in capsys.readouterr().err
