"""What guidebook.json must say so that a guidebook can be used, checked whenever it is read.

The file ends with a digest of everything it says. One that was changed by hand, or in which a byte has flipped, is
refused: an answer from it could be wrong without a sign. Guidebooks from before there were digests load without.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import xxhash
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from guidebook.errors import InputError

FACTS = "guidebook.json"
FORMAT = 1
DIGEST = "digest"
LONGEST_NAME = 255  # of a file or a folder, on every file system there is
AGAIN = "Copy the guidebook again from where it is whole, or adapt again."


def _one_folder(name: str) -> str:
    if not name or len(name) > LONGEST_NAME or name in (".", "..") or re.search(r"[/\\\x00]", name):
        raise ValueError(f"{name!r:.60} does not name one folder")
    return name


def _inside(name: str) -> str:
    for part in name.split("/"):
        _one_folder(part)
    return name


def _expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression ({error})") from error
    return pattern


Number = Annotated[float, Field(allow_inf_nan=False)] | None  # None: it was undefined when it was written
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
FolderName = Annotated[str, AfterValidator(_one_folder)]
FileName = Annotated[str, AfterValidator(_inside)]
Expression = Annotated[str, AfterValidator(_expression)]


class _Part(BaseModel):
    """A part of guidebook.json: types are taken as they stand, what is not named here is left alone."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Base(_Part):
    id: Annotated[str, Field(min_length=1)]
    fingerprint: Hash
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantise: Literal["8bit", "4bit"] | None = None
    modules: dict[str, Expression] = {}
    path: Annotated[str, Field(min_length=1)] | None = None
    relative: Annotated[str, Field(min_length=1)] | None = None


class _Task(_Part):
    kind: Literal["classification", "token_classification", "causal_lm"]
    labels: list[str]
    pairs: bool
    pooling: Literal["mean", "cls", "last", "tokens"]
    max_length: Annotated[int, Field(ge=1, lt=2**31)]
    template: str | None = None

    @model_validator(mode="after")
    def _agree(self) -> _Task:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels holds a name twice")
        if (self.kind == "causal_lm") != (not self.labels):
            raise ValueError(f"labels is {self.labels}, which does not fit the task {self.kind}")
        if (self.kind == "token_classification") != (self.pooling == "tokens"):
            raise ValueError(f"pooling is {self.pooling}, which does not fit the task {self.kind}")
        return self


class _Variant(_Part):
    stack: list[FolderName]
    folder: Literal[".", "source_only"]
    head: str | None


class _Adapter(_Part):
    kind: str


class _Training(_Part):
    dtype: Literal["auto", "float32", "bfloat16"]
    max_length: Annotated[int, Field(ge=1, lt=2**31)]


class _Target(_Part):
    name: str
    path: str | None = None


class _Recipe(_Part):
    adapter: _Adapter | list[_Adapter]
    train: _Training
    targets: list[_Target]


class _Calibration(_Part):
    scale: Number
    bias: list[Number]


class _Prior(_Part):
    em: dict[str, dict[str, Number]]
    pulled: dict[str, Number]
    withheld: str = ""


class _Doubt(_Part):
    disagreement: float
    expected: float


class _Scored(_Part):
    name: str
    validators: dict[str, dict[str, Number]] = {}
    doubts: dict[str, _Doubt] = {}
    prior: _Prior | None = None


class _Scores(_Part):
    source_prior: dict[str, Number] = {}
    calibration: dict[str, _Calibration] = {}
    targets: list[_Scored] = []


class _Domain(_Part):
    name: str
    role: str
    fingerprint: str


class _Facts(_Part):
    format: Literal[1]
    base: _Base
    task: _Task
    recipe: _Recipe
    method: str
    seed: int
    variants: dict[str, _Variant]
    serves: dict[str, str]
    domains: list[_Domain]
    scores: _Scores = _Scores()
    files: dict[FileName, Hash] | None = None
    digest: Hash | None = None

    @model_validator(mode="after")
    def _agree(self) -> _Facts:
        for target, variant in self.serves.items():
            if variant not in self.variants:
                raise ValueError(f"serves.{target} names the variant {variant!r}, which is not there")
        names = set(self.task.labels)
        priors = [entry.prior for entry in self.scores.targets if entry.prior is not None]
        shares = [prior.pulled for prior in priors] + [prior.em for prior in priors]
        if self.scores.source_prior:
            shares.append(self.scores.source_prior)
        if any(set(share) != names for share in shares):
            raise ValueError("scores has class shares that are not those of the labels")
        if any(len(fit.bias) != len(names) for fit in self.scores.calibration.values()):
            raise ValueError("scores.calibration has other classes than the labels")
        return self


def digest_of(facts: Mapping[str, Any]) -> str:
    """Return the xxh3_128 of what guidebook.json says, however it is laid out.

    >>> digest_of({"a": 1, "b": [2.0]}) == digest_of({"b": [2.0], "a": 1, "digest": "any"})
    True
    """
    content = {key: value for key, value in facts.items() if key != DIGEST}
    return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())


def with_digest(text: str) -> str:
    """Return the text of guidebook.json with its digest at the end."""
    facts = {key: value for key, value in json.loads(text).items() if key != DIGEST}
    return json.dumps({**facts, DIGEST: digest_of(facts)}, indent=1, ensure_ascii=False) + "\n"


def read_facts(path: Path) -> dict[str, Any]:
    """Return what guidebook.json says, if a guidebook can be used by it.

    Raises:
        InputError: there is no such file, it is damaged or was changed, or it is of another version.
    """
    try:
        return facts_from(path.read_bytes(), path)
    except FileNotFoundError as error:
        raise InputError(
            f"{path.parent}: not a guidebook: it has no {path.name}. Name the folder of a run. {AGAIN}"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error


def facts_from(raw: bytes, path: Path) -> dict[str, Any]:
    """Return what the bytes of guidebook.json say; `path` is for messages.

    Raises:
        InputError: as `read_facts`.
    """
    start = f"{path}: not the description of a guidebook: "
    if raw.startswith(b"version https://git-lfs"):
        raise InputError(f"{start}it is a Git LFS pointer, not the file itself. Fetch the files: git lfs pull")
    try:
        facts = json.loads(raw.decode("utf-8-sig"), parse_constant=_no_number)
        if not isinstance(facts, dict) or "format" not in facts:
            raise InputError(f"{start}it has no format. {AGAIN}")
        if type(facts["format"]) is not int or facts["format"] != FORMAT:
            raise InputError(
                f"{path}: format {facts['format']!r:.40}, this guidebook reads {FORMAT}. Install another version."
            )
        if not _is_intact(facts):
            raise InputError(
                f"{path}: what it says was changed since it was written (its digest differs). {AGAIN} If the base has "
                "moved, leave the file alone and name the base: --base FOLDER."
            )
        _Facts.model_validate(facts)
    except ValidationError as error:
        raise InputError(f"{start}{_first(error)}. {AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{start}{str(error)[:200] or type(error).__name__}. {AGAIN}") from error
    return facts


def _is_intact(facts: Mapping[str, Any]) -> bool:
    """Return whether the digest is right; a guidebook that lists its files has one, older ones need none."""
    if DIGEST not in facts:
        return "files" not in facts
    return bool(facts[DIGEST] == digest_of(facts))


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} stands where a number should")


def _first(error: ValidationError) -> str:
    """Return the place and the kind of the first thing that is wrong."""
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    found = "" if problem["type"] in ("missing", "value_error") else f" (found {problem['input']!r:.60})"
    text = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {text[:200]}{found}" if place else text[:200]
