"""What a GGUF file says of itself: its format, metadata and list of tensors, checked before anything trusts it."""

from __future__ import annotations

import mmap
import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from guidebook.errors import InputError

MAGIC = b"GGUF"
OLDER = (b"ggml", b"lmgg", b"ggmf", b"fmgg", b"ggjt", b"tjgg", b"ggla", b"algg")
"""First bytes of the formats before GGUF, in either order."""
VERSIONS = (2, 3)
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
DIMENSIONS = 4
"""Of a tensor at most: ggml has no more."""


@dataclass(frozen=True)
class Listed:
    """A tensor of the file.

    Attributes:
        name: In the words of llama.cpp.
        shape: Fastest dimension first, as it is stored.
        kind: Name of its type: F16, Q4_1.
        offset: Where its numbers begin: after the header while it is read, in the whole file once it is.
        size: Bytes of its numbers.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    offset: int
    size: int


@dataclass(frozen=True)
class Header:
    """What stands before the numbers.

    Attributes:
        metadata: Keys and values; of an array only its length.
        tensors: In the order of the file.
    """

    metadata: dict[str, Any]
    tensors: tuple[Listed, ...]

    @property
    def architecture(self) -> str:
        """Name of the architecture: llama, qwen2."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def most_common_type(self) -> str:
        """Type of most matrices; biases and norms, which no file quantises, do not count where there are matrices."""
        matrices = [tensor for tensor in self.tensors if len(tensor.shape) > 1] or self.tensors
        return Counter(tensor.kind for tensor in matrices).most_common(1)[0][0]


def read_header(path: Path) -> Header:
    """Return the header of a GGUF file that holds one whole language model.

    Raises:
        InputError: not GGUF, damaged, cut short, a part of a split model, or no language model.
    """
    if part := PART.search(path.name):
        raise InputError(_split(path, int(part[2])))
    try:
        with path.open("rb") as file:
            start = file.read(8)
            _check_start(path, start)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as blob:
                header = _Reader(path, blob).header()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    _check_content(path, header)
    return header


def _check_start(path: Path, start: bytes) -> None:
    if start[:4] in OLDER:
        raise InputError(
            f"{path}: a model in a format older than GGUF. Convert it with llama.cpp, or get a newer file."
        )
    if start[:4] != MAGIC:
        raise InputError(
            f"{path}: not a GGUF file: it starts with {start[:4]!r}, not {MAGIC!r}. "
            "Name a GGUF file, or a folder with a model as transformers saves it."
        )
    if len(start) < 8:
        raise InputError(_damaged(path, "it ends after its first bytes"))
    version = struct.unpack("<I", start[4:8])[0]
    if version not in VERSIONS:
        swapped = struct.unpack(">I", start[4:8])[0]
        order = " (a file for big-endian machines)" if swapped in VERSIONS else ""
        raise InputError(
            f"{path}: GGUF version {version}{order}, expected {' or '.join(map(str, VERSIONS))}. "
            "Convert the model again with a current llama.cpp, or get another file."
        )


def _check_content(path: Path, header: Header) -> None:
    """Refuse a file that holds something else than one whole language model."""
    facts, architecture = header.metadata, header.architecture
    if int(facts.get("split.count", 0) or 0) > 1:
        raise InputError(_split(path, int(facts["split.count"])))
    kind = str(facts.get("general.type", "model"))
    if architecture == "clip" or kind == "mmproj":
        raise InputError(
            f"{path}: the part of a multimodal model that reads images (mmproj), not a language model. "
            "Name the file of the language model beside it."
        )
    if kind != "model":
        raise InputError(f"{path}: its general.type is {kind!r}, expected 'model'. Name the file of the model itself.")
    if not architecture:
        raise InputError(
            f"{path}: does not say its architecture (general.architecture). Get another file of the model."
        )
    if not header.tensors:
        raise InputError(f"{path}: holds a vocabulary only, no weights. Name the file with the model's weights.")
    if not facts.get("tokenizer.ggml.tokens"):
        raise InputError(f"{path}: holds no tokenizer (tokenizer.ggml.tokens). Get a file that was converted with it.")


def _split(path: Path, parts: int) -> str:
    return (
        f"{path}: one of the {parts} parts of a split model. Join them first, llama-gguf-split --merge FIRST-PART "
        "WHOLE.gguf, and name the whole file."
    )


def _damaged(path: Path, why: str) -> str:
    return f"{path}: a damaged GGUF file: {why}. Download or copy it again."


class _Reader:
    """Reads a header; no number of the file is believed before it is known to lie inside it."""

    def __init__(self, path: Path, blob: mmap.mmap) -> None:
        self.path, self.blob, self.place = path, blob, 8

    def header(self) -> Header:
        tensors, keys = self.take("QQ")
        metadata = {}
        for _ in range(self.count(keys, 12)):
            key = self.text()
            metadata[key] = self.value(self.take("I")[0])
        listed = [self.tensor() for _ in range(self.count(tensors, 24))]
        return Header(metadata, tuple(self.placed(listed, metadata.get("general.alignment", 32))))

    def take(self, form: str) -> tuple[Any, ...]:
        size = struct.calcsize(f"<{form}")
        if self.place + size > len(self.blob):
            raise self.short()
        found = struct.unpack_from(f"<{form}", self.blob, self.place)
        self.place += size
        return found

    def count(self, claimed: int, least: int) -> int:
        """Return how many items follow, each of at least so many bytes."""
        if claimed * least > len(self.blob) - self.place:
            raise self.short()
        return claimed

    def text(self) -> str:
        size = self.count(self.take("Q")[0], 1)
        raw = self.blob[self.place : self.place + size]
        self.place += size
        try:
            return raw.decode("utf8")
        except UnicodeDecodeError as error:
            raise InputError(
                _damaged(self.path, f"a name of its header is not UTF-8 (byte {self.place - size})")
            ) from error

    def value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self.take(SCALARS[kind])[0]
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            raise InputError(_damaged(self.path, f"its header holds a value of the unknown type {kind}"))
        inner, claimed = self.take("IQ")
        if inner in SCALARS:
            size = struct.calcsize(f"<{SCALARS[inner]}")
            self.place += self.count(claimed, size) * size
        elif inner == STRING:  # a vocabulary: walked over, not read
            for _ in range(self.count(claimed, 8)):
                size = self.count(self.take("Q")[0], 1)
                self.place += size
        else:
            raise InputError(_damaged(self.path, f"its header holds a list of the unknown type {inner}"))
        return claimed

    def tensor(self) -> Listed:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name, dimensions = self.text(), self.take("I")[0]
        if not 1 <= dimensions <= DIMENSIONS:
            raise InputError(_damaged(self.path, f"tensor {name!r} has {dimensions} dimensions"))
        shape = self.take("Q" * dimensions)
        number, offset = self.take("IQ")
        try:
            kind = GGMLQuantizationType(number)
        except ValueError as error:
            raise InputError(
                f"{self.path}: tensor {name!r} is of type {number}, which the package gguf does not know. "
                "Update it (pip install -U gguf), or get the model in another type, such as Q8_0."
            ) from error
        block, size = GGML_QUANT_SIZES[kind]
        if shape[0] % block:
            raise InputError(
                _damaged(self.path, f"tensor {name!r} of shape {shape} does not fit blocks of {kind.name}")
            )
        return Listed(name, shape, kind.name, offset, prod(shape) // block * size)

    def placed(self, listed: list[Listed], alignment: int) -> Iterator[Listed]:
        """Yield tensors with their places in the whole file."""
        if not isinstance(alignment, int) or alignment < 1:
            raise InputError(_damaged(self.path, f"its alignment is {alignment!r}"))
        start = (self.place + alignment - 1) // alignment * alignment
        for item in listed:
            end = start + item.offset + item.size
            if end > len(self.blob):
                raise InputError(
                    f"{self.path}: cut short: tensor {item.name!r} should end at byte {end:,}, the file has "
                    f"{len(self.blob):,}. Download or copy it again."
                )
            yield replace(item, offset=start + item.offset)

    def short(self) -> InputError:
        return InputError(
            f"{self.path}: cut short or damaged: its header goes on after byte {len(self.blob):,}, where "
            "the file ends. Download or copy it again."
        )
