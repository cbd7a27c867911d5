"""The artifact: a folder of adapters, head, card and records that works on its frozen base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from torch import nn

from guidebook.adapters.host import Host
from guidebook.adapters.union import kind_name
from guidebook.artifact_files import HEAD, check_intact, check_present, head_tensors, read_tensors
from guidebook.artifact_places import check_base, check_together, folder_of, load_host, name_of
from guidebook.artifact_schema import FACTS, read_facts
from guidebook.data.in_memory import column_of, texts_of
from guidebook.data.tags import words_of
from guidebook.errors import InputError, nearest
from guidebook.folders import copy_folder, replace_folder
from guidebook.training.engine import head_from
from guidebook.training.generation import Sampling, write
from guidebook.training.precision import dtype_of
from guidebook.training.prediction import make_rows, make_word_rows, predict_probabilities
from guidebook.writing import BASE_VARIANT, EVIDENCE, REPORT, check_out, retire_audit


class Guidebook:
    """One or several guidebooks on one frozen base.

    Rows of different domains may come in one call; each row's answer depends on its own guidebook alone, so adding,
    removing or retraining one leaves every answer of the others bit-equal.
    """

    def __init__(self, host: Host, books: Mapping[str, tuple[Path, dict[str, Any]]]) -> None:
        self._host = host
        self._books = dict(books)
        self._loaded: dict[str, str] = {}
        self._heads: dict[tuple[Path, str], nn.Module] = {}
        self.lock = RLock()
        """Held while something is switched on and run; hold it around what uses `host` where other threads predict."""

    @property
    def meta(self) -> dict[str, Any]:
        """What guidebook.json says (of the first guidebook)."""
        return next(iter(self._books.values()))[1]

    @property
    def path(self) -> Path:
        """The folder of the (first) guidebook."""
        return next(iter(self._books.values()))[0]

    @property
    def host(self) -> Host:
        """The base, with the adapters that were loaded."""
        return self._host

    @property
    def labels(self) -> list[str]:
        """Class names in the order of the probabilities' columns."""
        return list(self.meta["task"]["labels"])

    @property
    def domains(self) -> list[str]:
        """Names that `domain=` accepts: the guidebooks and the targets they serve."""
        served = [name for _, facts in self._books.values() for name in facts["serves"]]
        return list(dict.fromkeys([*self._books, *served]))

    def predict(
        self, texts: Sequence[str], text_pairs: Sequence[str] | None = None, domain: Any = "auto"
    ) -> np.ndarray:
        """Return the label (B,) of every text, or its list of tags, one per word; arguments as in `predict_proba`."""
        probabilities, names = self.predict_proba(texts, text_pairs, domain), np.array(self.labels, dtype=object)
        if not self.words:
            found: np.ndarray = names[probabilities.argmax(1)]
            return found
        return _rows([names[row.argmax(1)].tolist() for row in probabilities])

    def predict_proba(
        self, texts: Sequence[str], text_pairs: Sequence[str] | None = None, domain: Any = "auto"
    ) -> np.ndarray:
        """Return class probabilities (B, C) of texts; of a task on words an object array of (words, C) arrays.

        Args:
            texts: One string per row; long ones are read in several windows whose probabilities are averaged. Where
                words are tagged: lists of words, or strings that are cut at white space.
            text_pairs: The second text of every row, for tasks on pairs.
            domain: A guidebook or a target it serves, or a list with one per row; None is the base with a linear
                probe, adapters off; "source_only" the twin. "auto": the only one there is.

        Raises:
            InputError: an unknown domain, or several to choose from.
        """
        texts, text_pairs = self._checked(texts, text_pairs)
        one = domain is None or isinstance(domain, str | Path)
        wanted = [domain] * len(texts) if one else list(column_of(domain, "domain"))
        if len(wanted) != len(texts):
            raise InputError(
                f"{len(texts)} texts, but {len(wanted)} domains. Give one domain per text, or one for all."
            )
        result: np.ndarray = _rows([None] * len(texts)) if self.words else np.zeros((len(texts), len(self.labels)))
        places = [self._place(name) for name in wanted]
        for place in dict.fromkeys(places):
            rows = [index for index, found in enumerate(places) if found == place]
            pairs = [text_pairs[index] for index in rows] if text_pairs is not None else None
            with self.lock:
                result[rows] = self._predicted(place, [texts[index] for index in rows], pairs)
        return result

    def _predicted(self, place: tuple[str, str], texts: list[str], text_pairs: list[str] | None) -> np.ndarray:
        """Return what one variant says of texts: probabilities (B, C), or an object array of (words, C) arrays."""
        head, facts = self._activate(*place)
        length, dtype = facts["task"]["max_length"], dtype_of(facts)
        if not self.words:
            template = facts["task"].get("template")
            inputs = make_rows(texts, text_pairs, self._host.tokenizer, length, template=template)
            return predict_probabilities(self._host, head, inputs, dtype)
        values = predict_probabilities(self._host, head, make_word_rows(texts, self._host.tokenizer, length), dtype)
        ends = np.cumsum([len(text.split(" ")) for text in texts])[:-1]
        return _rows(np.split(values, ends))

    @property
    def words(self) -> bool:
        """Whether the task tags words."""
        return bool(self.meta["task"]["pooling"] == "tokens")

    def _checked(self, texts: Sequence[str], text_pairs: Sequence[str] | None) -> tuple[list[str], list[str] | None]:
        """Return texts and pairs as lists, if they are what the task reads."""
        if self.words:
            texts = [" ".join(words_of(text)) for text in column_of(texts, "texts")]
        first, second = texts_of(texts, "texts"), None if text_pairs is None else texts_of(text_pairs, "text_pairs")
        if self.meta["task"]["pairs"] and second is None:
            raise InputError("This guidebook reads pairs of texts. Give text_pairs, one per text.")
        if not self.meta["task"]["pairs"] and second is not None:
            raise InputError("This guidebook reads single texts, found text_pairs. Leave them out.")
        if second is not None and len(second) != len(first):
            raise InputError(f"{len(first)} texts, but {len(second)} text_pairs. Give one per text.")
        return first, second

    def _place(self, domain: str | None) -> tuple[str, str]:
        """Return (guidebook, variant) of a domain."""
        if domain is None:
            return next(iter(self._books)), BASE_VARIANT
        if not isinstance(domain, str):
            raise InputError(f"domain is {domain!r}, expected a name, or None for the base. Known: {self.domains}.")
        if domain in self._books:
            facts = self._books[domain][1]
            own = facts["serves"].get(domain, domain if domain in facts["variants"] else None)
            return domain, own or self._only_variant(domain)
        found = [
            (name, facts["serves"].get(domain, domain))
            for name, (_, facts) in self._books.items()
            if domain in facts["serves"] or domain in facts["variants"]
        ]
        if domain == "auto" and len(self._books) == 1:
            name = next(iter(self._books))
            return name, self._only_variant(name)
        if len(set(found)) == 1:
            return found[0]
        if found or domain == "auto":
            raise InputError(f"Several guidebooks could answer for {domain!r}. Name one of {', '.join(self.domains)}.")
        raise InputError(
            f"No guidebook for {domain!r}.{nearest(domain, self.domains)} Known: {', '.join(self.domains)}."
        )

    def _only_variant(self, name: str) -> str:
        facts = self._books[name][1]
        variants = sorted(set(facts["serves"].values()))
        if not variants:
            raise InputError(f"{name} was made by {facts['method']}, which keeps no model; domain='source_only' works.")
        if len(variants) != 1:
            raise InputError(f"{name} holds one adapter per target. Name the domain: {', '.join(facts['serves'])}.")
        return str(variants[0])

    def generate(
        self,
        prompts: Sequence[str],
        sampling: Sampling | None = None,
        domain: Any = "auto",
        on_text: Callable[[str], None] | None = None,
    ) -> list[str]:
        """Return what the model writes after each prompt, without the prompt.

        Args:
            prompts: Texts to go on from.
            sampling: How tokens are drawn.
            domain: As in `predict_proba`, one for all; None is the base.
            on_text: Is called with every piece of text as soon as it is there.

        Raises:
            InputError: not a causal base, an unknown domain, a prompt that leaves no room.
        """
        texts = texts_of(prompts, "prompts")
        with self.lock:
            return write(self.wear(domain), texts, sampling or Sampling(), on_text)

    def wear(self, domain: Any = "auto") -> Host:
        """Return the base with a domain's adapters switched on; None: with all of them off."""
        if domain is None:
            self._host.activate((), train=())
        else:
            self._put_on(*self._place(domain))
        return self._host

    def _put_on(self, name: str, variant: str) -> None:
        """Switch on a variant's adapters."""
        path, facts = self._books[name]
        known = facts["variants"][variant]
        stack = []
        for adapter in known["stack"]:
            place = str(path / known["folder"] / "adapters" / adapter)
            if place not in self._loaded:
                check_intact(path, facts, Path(place))
                self._make_room(kind_name(facts["recipe"]["adapter"]))
                self._loaded[place] = f"book{len(self._loaded)}"
                self._host.load_adapter(self._loaded[place], Path(place))
            stack.append(self._loaded[place])
        self._host.activate(tuple(stack), train=())

    def _activate(self, name: str, variant: str) -> tuple[nn.Module, dict[str, Any]]:
        """Switch on a variant's adapters and return its head and its guidebook's facts."""
        path, facts = self._books[name]
        known = facts["variants"].get(variant)
        if known is None or known["head"] is None:
            raise InputError(f"{path}: {variant} has no task head; it was trained on text alone. Use generate.")
        self._put_on(name, variant)
        if (path, variant) not in self._heads:
            classes, hidden = len(facts["task"]["labels"]), self._host.hidden_size
            stored = read_tensors(path, facts, HEAD)
            tensors = head_tensors(path / HEAD, stored, known["head"], classes, hidden)
            head = head_from(tensors, facts["task"]["pooling"])
            self._heads[path, variant] = head.to(next(self._host.model.parameters()).device)
        return self._heads[path, variant], facts

    def _make_room(self, kind: str) -> None:
        """Take the other guidebooks' adapters off the base if they are of another kind: it carries one at a time."""
        if any(self._host.kind_of(name) != kind for name in self._loaded.values()):
            for name in self._loaded.values():
                self._host.remove(name)
            self._loaded.clear()

    def save_pretrained(self, path: str | Path) -> None:
        """Copy the (first) guidebook to a folder: new, empty, or a guidebook, of which a person's files are kept.

        Raises:
            InputError: the folder is something else, or lies in the guidebook itself.
        """
        folder, own = check_out(Path(path)), self.path.resolve()
        if folder == own or own in folder.parents or folder in own.parents:
            raise InputError(f"{folder}: the guidebook cannot be copied over or into itself. Choose another folder.")
        replace_folder(folder, lambda fresh: copy_folder(own, fresh), retire_audit)

    def push_to_hub(self, repo_id: str, private: bool = False) -> str:
        """Upload the (first) guidebook to the Hugging Face Hub and return its address.

        What quotes the target's texts (report and evidence) stays here.
        """
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=str(self.path), ignore_patterns=[EVIDENCE, REPORT]))


def _rows(values: Sequence[Any]) -> np.ndarray:
    """Return an object array (N,) whose items are the values, even if they have equal lengths."""
    found = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        found[index] = value
    return found


def load(first: str | Path, *more: str | Path, base: str | Path | None = None) -> Guidebook:
    """Return guidebooks ready to predict.

    Args:
        first: A guidebook (a folder, or "owner/name" of the Hub, with "@revision" if need be), or the base that those
            after it were trained on.
        more: Further guidebooks on the same base.
        base: The base, where it is not the one that the guidebooks name: its folder was moved, or there is a copy.

    Raises:
        InputError: not a guidebook, one that is damaged, one whose base is not there, or guidebooks that do not go
            together: other bases, tasks or labels.
    """
    items = [first, *more]
    if more and base is None and folder_of(first, maybe_base=True) is None:
        base, items = first, list(more)
    books: dict[str, tuple[Path, dict[str, Any]]] = {}
    for item in items:
        place = folder_of(item)
        assert place is not None
        name, facts = name_of(item, place), read_facts(place / FACTS)
        check_present(place, facts)
        if name in books:
            raise InputError(f"Two guidebooks are named {name!r}. Rename one of the folders.")
        books[name] = (place, facts)
    check_together({name: facts for name, (_, facts) in books.items()})
    place, facts = next(iter(books.values()))
    host = load_host(place, facts, base)
    for name, (_, facts) in books.items():
        check_base(name, facts["base"], host)
        host.check_length(facts["task"]["max_length"])
    return Guidebook(host, books)
