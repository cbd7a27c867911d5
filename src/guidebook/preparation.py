"""Everything before the first stage: read the data, hide the targets' labels, load the frozen base."""

from __future__ import annotations

from collections.abc import Iterator

from guidebook.adapters.feasible import check_base
from guidebook.adapters.host import Host
from guidebook.data.cache import require_cache
from guidebook.data.classes import class_notes
from guidebook.data.corpus import Corpus, read_corpus
from guidebook.data.describe import cut_counts
from guidebook.data.documents import Split, read_documents_corpus
from guidebook.data.domains import require_source
from guidebook.data.population import Population
from guidebook.data.template import Template
from guidebook.errors import InputError
from guidebook.recipe import Recipe
from guidebook.training.engine import Engine
from guidebook.training.generation import require_causal
from guidebook.training.layers import check_layers
from guidebook.training.listener import Listener
from guidebook.training.pooling import settle_pooling
from guidebook.training.run import Material
from guidebook.training.scoring import start_token
from guidebook.training.store import Store
from guidebook.training.trainer import bf16_is_fast, check_arguments


def prepare(recipe: Recipe, listener: Listener) -> tuple[Material, Engine]:
    """Read the data, hide the targets' labels, load the base and fix what all arms share."""
    if not recipe.targets:
        raise InputError(
            "The recipe has no target. Name unlabelled text: `targets: [kitchen.csv]`, --target kitchen.csv."
        )
    root = require_cache()
    check_arguments(recipe.trainer)
    corpus = read(recipe)
    split_off = [p for p in corpus.dev if p.name in {source.name for source in corpus.sources}]  # said with the rest
    for population in (*corpus.everything, *corpus.dev):
        listener.note(_what_was_read(population, corpus))
        for why, count in population.dropped.items() if population not in split_off else ():
            listener.note(f"{population.name}: {count} rows dropped: {why}")
        if population.note:
            listener.note(f"{population.name}: {population.note}")
    for line in class_notes((*corpus.sources, *corpus.dev)):
        listener.note(line)
    if corpus.sources and recipe.task.dev > 0 and not corpus.dev:
        listener.note(
            f"too few different texts to hold out a share of {recipe.task.dev:g} (task.dev): how well the source is "
            "learned is not measured"
        )
    dropout = recipe.train.base_dropout or recipe.adapter.kind == "full"
    host = Host.load(
        recipe.base,
        recipe.base_dtype,
        dropout,
        getattr(recipe.adapter, "modules", {}),
        quantise=recipe.quantise,
        needs_lm_head=False,  # what models text asks for it when it is planned
    )
    check_base(host.dtype, host.quantise, recipe.adapter.kind)  # a base may have been saved quantised
    host.check_length(max(recipe.train.max_length, recipe.task.max_length))
    if not recipe.task.labelled:
        require_causal(host)
        start_token(host)
    check_layers(host, recipe.train)
    if host.dtype != "float32" and not bf16_is_fast():
        listener.note(f"base_dtype {host.dtype} halves the base's memory; on this machine it is slower than float32")
    engine = Engine(
        host=host,
        adapter=recipe.adapter,
        task=recipe.task,
        classes=len(corpus.labels.names),
        train=recipe.train,
        seed=recipe.seed,
        store=Store(root),
        trainer=recipe.trainer,
        listener=listener,
    )
    material = Material(
        corpus,
        host.tokenizer,
        length=recipe.train.max_length,
        task_length=recipe.task.max_length,
        causal=host.placement.kind == "causal",
        words=recipe.task.words,
        cache=engine.store.root / "tokens",
        template=_template(recipe, corpus),
    )
    if recipe.task.labelled and not recipe.task.words:
        for told in _what_is_cut(material):
            listener.note(told)
    settle_pooling(engine, material)
    return material, engine


def _template(recipe: Recipe, corpus: Corpus) -> str | None:
    """Return the task's template with {text} and {text_pair} as its fields, if it has one that fits the source."""
    if recipe.task.template is None:
        return None
    template = Template.read(recipe.task.template)
    template.check(corpus.sources[0].columns, pairs=corpus.sources[0].text_pairs is not None)
    return template.written()


def _what_is_cut(material: Material) -> Iterator[str]:
    """Yield a line for every domain with rows that training cuts, else one line that there is none."""
    length, whole = material.task_length, True
    for population in (*material.corpus.sources, *material.corpus.targets):
        tokens, pairs = material.plain_tokens(population), material.plain_pairs(population)
        counts = cut_counts(tokens, pairs, length, material.task_specials)
        if counts["texts_cut"]:
            whole = False
            rows, lost = counts["texts_cut"] / len(tokens), counts["tokens_cut"] / counts["tokens"]
            yield (
                f"{population.name} ({population.role}): task.max_length {length} cuts {rows:.1%} of the rows and "
                f"{lost:.1%} of the tokens in training; predictions read long rows in windows"
            )
    if whole:
        yield f"task.max_length {length} cuts no row"


def _what_was_read(population: Population, corpus: Corpus) -> str:
    rows, who = len(population.texts), f"{population.name} ({population.role})"
    if population.division:
        held_out = len(corpus.tests[population.name].texts)
        return f"{who}: {rows:,} documents to train on, {held_out:,} held out ({population.division})"
    chosen = {role: name for role, name in vars(population.columns).items() if name}
    return f"{who}: {rows} rows, columns {chosen or 'text'}"


def read(recipe: Recipe) -> Corpus:
    """Read every domain the recipe names, as its task wants them."""
    if not recipe.task.labelled:
        if recipe.source or recipe.unlabelled:
            raise InputError(f"The task {recipe.task.kind} has no labels, so it takes no source. Name targets alone.")
        task = recipe.task
        held = (task.validation_split_ratio, task.split_seed, task.group)
        split = Split(*held, task.max_train_documents, task.max_validation_documents)
        return read_documents_corpus(recipe.targets, recipe.general, split)
    require_source(recipe.source)
    return read_corpus(
        recipe.source,
        recipe.targets,
        unlabelled=recipe.unlabelled,
        general=recipe.general,
        labels=recipe.task.labels,
        dev=recipe.task.dev,
        seed=recipe.seed,
        words=recipe.task.words,
    )
