"""The printed recipe is one, and with every # taken away it says the defaults."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from guidebook.adapters.presets import KINDS
from guidebook.cli.fields import fields_of, sections
from guidebook.cli.main import main
from guidebook.cli.recipe import template
from guidebook.errors import InputError
from guidebook.methods import METHODS
from guidebook.recipe import Recipe, load_recipe


def uncommented(text: str) -> str:
    """Take the # away from every key; comments have a space behind theirs."""
    return re.sub(r"^( *)#(?=\w+:)", r"\1", text, flags=re.MULTILINE)


BRING_A_FILE = ("few_target_labels", "teacher")
"""Methods with a field that has no default."""


@pytest.mark.parametrize("method", BRING_A_FILE)
def test_the_template_shows_the_field_that_must_be_filled(method, tmp_path):
    text = template(method, "houlsby", "classification")
    assert re.search(r"^ *#? ?path:", text, re.MULTILINE)
    with pytest.raises(InputError, match=r"method\.path"):
        Recipe(source=str(tmp_path / "books.csv"), targets=[str(tmp_path / "kitchen.csv")], method=method)


@pytest.mark.parametrize("method", [method for method in METHODS if method not in BRING_A_FILE])
@pytest.mark.parametrize("adapter", KINDS)
def test_the_template_is_a_recipe_of_defaults(method, adapter, tmp_path):
    text = template(method, adapter, "classification")
    plain, full = tmp_path / "plain.yaml", tmp_path / "full.yaml"
    plain.write_text(text, encoding="utf8")
    full.write_text(uncommented(text), encoding="utf8")
    assert uncommented(text) != text
    data = {"source": str(tmp_path / "books.csv"), "targets": [str(tmp_path / "kitchen.csv")]}
    expected = Recipe(**data, method=method, adapter=adapter)
    assert load_recipe(plain) == expected
    # Known for the packaged bases, and empty in the template.
    assert load_recipe(full).replace(base_saw=expected.base_saw) == expected


def test_every_field_is_there_with_its_documentation():
    text = " ".join(template("domain_fusion", "houlsby", "classification").replace("# ", "").split())
    for heading, _, place in sections():
        if heading.startswith(("The recipe", "Training")) or "`houlsby`" in heading or "`domain_fusion`" in heading:
            for field in fields_of(place):
                assert f"{field.name}:" in text
                assert field.text in text or field.name == "kind"


def test_the_command_prints_it(capsys):
    assert main(["recipe", "--adapter", "lora"]) == 0
    assert "kind: lora" in capsys.readouterr().out
    assert main(["recipe", "--method", "domain_fuson"]) == 2
    assert "Did you mean 'domain_fusion'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [("guidebook ad", "adapt"), ("guidebook adapt --method domain", "domain_fusion"), ("guidebook ls arch", "archit")],
)
def test_the_shell_completes_commands_and_names(words, expected):
    environment = {
        "_GUIDEBOOK_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
        "PYTHONPATH": ":".join(sys.path),
        "PATH": "",
    }
    code = "from guidebook.cli.main import main; import sys; sys.exit(main([]))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert expected in done.stdout


def test_completion_is_offered(capsys):
    assert main(["--help"]) == 0
    assert "--install-completion" in capsys.readouterr().out
