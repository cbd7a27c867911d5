"""The model card: README.md of an artifact, with the front matter that the Hub reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from guidebook.adapters.known import known_base
from guidebook.reports.scored import tagged
from guidebook.reports.summary import Facts, Table, arm_name, summary

LANGUAGE_MODEL = {
    "masked": "AutoModelForMaskedLM",
    "causal": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
}
NOT_PEFT = "full"
KNOWN_TO_PEFT = ("lora", "dora", "ia3")


def write_card(meta: Facts, path: str | Path) -> Path:
    """Write the model card of what guidebook.json says to `path`. The license is the user's to add."""
    place = Path(path)
    place.write_text(render_card(meta), encoding="utf-8")
    return place


def render_card(meta: Facts) -> str:
    """Return the model card of what guidebook.json says."""
    found = summary(meta)
    kinds = sorted({adapter["kind"] for adapter in meta["adapters"]})
    served = list(dict.fromkeys(meta["serves"].values()))
    return (
        _environment()
        .get_template("card.md" if meta["task"]["labels"] else "text_card.md")
        .render(
            meta=meta,
            summary=found,
            front=yaml.safe_dump(_front_matter(meta, kinds), sort_keys=False, allow_unicode=True),
            method=arm_name(meta["method"]),
            sources=[domain["name"] for domain in meta["domains"] if domain["role"] == "source"],
            targets=[target["name"] for target in meta["evaluation"]["targets"]],
            kinds=kinds,
            variant=meta["variants"][served[0]] if served else None,
            several=len(served) > 1,
            packaged=_is_packaged(meta["base"]["id"]),
            unpacked=not _is_packaged(meta["base"]["id"]) and _is_unpacked(meta["base"]),
            auto_class=LANGUAGE_MODEL[_kind_of(meta["base"]["model_type"])],
            registers=any(kind not in KNOWN_TO_PEFT for kind in kinds),
            with_peft=NOT_PEFT not in kinds
            and not any("+" in kind for kind in kinds),  # a union is two of PEFT's models
        )
    )


def _environment() -> Environment:
    made = Environment(  # Markdown, not HTML; the Hub cleans what it renders
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters.update(markdown=_markdown)
    return made


def _front_matter(meta: Facts, kinds: list[str]) -> dict[str, Any]:
    front: dict[str, Any] = {"library_name": "guidebook", "pipeline_tag": _pipeline(meta)}
    base = meta["base"]["id"]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not _is_unpacked(
        meta["base"]
    ):  # a packaged or local base is no model of the Hub
        front |= {"base_model": base, "base_model_relation": "adapter"}
    tags = ["guidebook", "domain-adaptation", meta["method"], *kinds]
    return front | {"tags": [*tags, "peft"] if kinds and NOT_PEFT not in kinds else tags}


def _pipeline(meta: Facts) -> str:
    if not meta["task"]["labels"]:
        return "text-generation"
    return "token-classification" if tagged(meta) else "text-classification"


def _is_packaged(base: str) -> bool:
    return re.fullmatch(r"[\w-]+", base) is not None and (Path(__file__).parents[1] / "bases" / base).is_dir()


def _is_unpacked(base: Facts) -> bool:
    """Whether transformers loads the base only from guidebook's cache: it has a name there, or is a GGUF file."""
    return bool(base.get("quantised_from")) or known_base(base["id"]) is not None


def _kind_of(model_type: str) -> str:
    from guidebook.adapters.placement import PLACEMENTS

    return PLACEMENTS[model_type].kind if model_type in PLACEMENTS else "masked"


def _markdown(table: Table) -> str:
    """A Markdown table, numbers to the right."""
    rule = ["---:" if side == "r" else "---" for side in table.align]
    rows = [table.columns, rule, *table.rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
