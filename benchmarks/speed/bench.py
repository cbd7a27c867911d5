"""How fast are training and prediction, beside what one would use instead and beside what the machine allows?

Every row measures its ways in turn, round after round, in one process on the same texts:

    causal_fusion    a decoder learns to model text: LoRA, texts of up to 256 tokens, 2,048 tokens a step
    masked_fusion    an encoder learns to model text: LoRA, up to 128 tokens, 4,096 tokens a step
    task_decoder     a decoder learns a task: LoRA and a head, 32 labelled rows a step
    predict_one      an encoder answers for one text after the other
    predict_batch    an encoder answers for many texts at once

    stock            PEFT and Trainer as documented: float32, random batches, padded; of predictions plain `pipeline`
    tuned            the same at its best: bf16 where this machine multiplies it faster, packed or grouped by length
    guidebook        this package
    floor            training: the products of matrices of a step alone, at the rate at which this machine multiplies
                     matrices of these shapes; predictions: one forward pass of the base alone, texts tokenised before

    python benchmarks/speed/bench.py --rows causal_fusion masked_fusion task_decoder predict_one predict_batch

The decoder is built from a configuration with random weights: `--size small` for a quick look, `--size smollm2` for the
shapes of SmolLM2-135M. `--clock cpu` counts processor time of one thread, for machines that others use too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf

sys.path.insert(0, str(Path(__file__).resolve().parent))

from clock import CLOCKS, Clock
from floor import tokens_per_second
from ours import Texts, bare_forward, book_of, fusion_round, host_with, task_round
from peers import Items, adapted, blocks, pipeline_of, trainer_round

from guidebook.adapters.bases import resolve_base
from guidebook.data.read import Columns, read_table
from guidebook.evaluation.records import append_record, machine, versions
from guidebook.training.trainer import chosen_dtype

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "reviews"
ROWS = ("causal_fusion", "masked_fusion", "task_decoder", "predict_one", "predict_batch")
SIZES = {
    "small": {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "num_attention_heads": 4,
              "num_key_value_heads": 2},
    "smollm2": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
                "num_key_value_heads": 3, "vocab_size": 49_152},
}  # fmt: skip
ENCODER = "mini"


def decoder(size: str, folder: Path) -> Path:
    """Return the folder of a Llama of a size, random weights, with the packaged decoder's tokenizer."""
    tokenizer = hf.AutoTokenizer.from_pretrained(resolve_base("mini-gptj")[0])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    special = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = hf.LlamaConfig(
        **{"vocab_size": len(tokenizer), **SIZES[size]},
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        **special,
    )
    torch.manual_seed(0)
    hf.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def read() -> Texts:
    """Return the example reviews with their labels, and documents of five reviews each."""
    tables = [read_table(path, Columns(), {}) for path in sorted(EXAMPLES.glob("*.csv"))]
    rows = [(text, label) for table in tables for text, label in zip(table.texts, table.labels or (), strict=True)]
    names = sorted({str(label) for _, label in rows})
    texts = [text for text, _ in rows]
    documents = [" ".join(texts[start : start + 5]) for start in range(0, len(texts), 5)]
    return Texts(texts, [names.index(str(label)) for _, label in rows], documents)


Ways = dict[str, Callable[[Clock], None]]


def training_ways(kind: str, base: Path, texts: Texts, bf16: bool) -> tuple[Ways, dict[str, Any]]:
    """Return what trains some steps, by name, and the floor of the step."""
    host = host_with(str(base), task=kind == "task")
    length, tokens = {"causal": (256, 2048), "masked": (128, 4096), "task": (128, 4096)}[kind]
    pieces, whole = texts.pieces(host, length), texts.rows(host, length)
    labels = texts.labels if kind == "task" else None
    rows = 32 if kind == "task" else tokens // length
    peer = adapted(base, kind)
    tokenizer = host.tokenizer
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    stock = Items(whole if kind == "task" else pieces, labels)
    best = Items(blocks(pieces, length), None) if kind == "causal" else stock
    make = task_round if kind == "task" else fusion_round
    ways: Ways = {
        "stock": trainer_round(peer, tokenizer, kind, stock, rows=rows, tuned=False, bf16=bf16),
        "tuned": trainer_round(peer, tokenizer, kind, best, rows=rows, tuned=True, bf16=bf16),
        "guidebook": make(host, texts, length=length, tokens=tokens, rows=rows, bf16=bf16),
    }
    mean = sum(map(len, whole if kind == "task" else pieces)) / len(pieces if kind != "task" else whole)
    floor = tokens_per_second(host, kind, tokens=tokens, length=mean, bf16=bf16)
    floor["trainable"] = {
        "peer": sum(p.numel() for p in peer.parameters() if p.requires_grad),
        "guidebook": sum(p.numel() for p in host.trainable().values()),
    }
    return ways, floor


def trained(kind: str, base: Path, texts: Texts, options: argparse.Namespace) -> dict[str, Any]:
    """Return real tokens per second of every way, round by round, and of the floor."""
    bf16 = chosen_dtype("auto") == "bfloat16"
    ways, floor = training_ways(kind, base, texts, bf16)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, run in ways.items():
            clock = Clock(CLOCKS[options.clock], options.steps)
            run(clock)
            found[name].append(clock.rate)
            print(f"  {kind:8s} {name:10s} {clock.rate:9.0f} tokens/s", flush=True)
    return {"unit": "real tokens/s", "bf16": bf16, "ways": {**found, "floor": [floor.pop("rate")]}, **floor}


def predicted(one: bool, texts: Texts, options: argparse.Namespace) -> dict[str, Any]:
    """Return texts per second of every way, round by round."""
    folder = Path(resolve_base(ENCODER)[0])
    pipe, chosen = pipeline_of(folder), texts.texts[: 24 if one else 192]
    with tempfile.TemporaryDirectory() as place:
        book = book_of(ENCODER, Path(place))
        by_length = sorted(chosen, key=len, reverse=True)
        bare = bare_forward(book.host, [[text] for text in chosen] if one else by_length)
        ways: dict[str, Callable[[], Any]] = {
            "stock": lambda: [pipe(text) for text in chosen] if one else pipe(chosen, batch_size=32),
            "tuned": lambda: [pipe(text) for text in chosen] if one else pipe(by_length, batch_size=32),
            "guidebook": lambda: [book.predict_proba([text]) for text in chosen] if one else book.predict_proba(chosen),
            "floor": bare,
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        now = CLOCKS[options.clock]
        for turn in range(options.rounds + 1):
            for name, run in ways.items():
                began = now()
                run()
                if turn:  # the first one warms up
                    found[name].append(len(chosen) / (now() - began))
    for name, rates in found.items():
        print(f"  {'one' if one else 'batch':8s} {name:10s} {statistics.median(rates):9.1f} texts/s", flush=True)
    return {"unit": "texts/s", "ways": found, "texts": len(chosen)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the rows that are asked for and append one record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--size", choices=list(SIZES), default="small", help="of the decoder")
    parser.add_argument("--steps", type=int, default=4, help="that count, of every way in every round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: as torch does")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--records", type=Path, default=Path(__file__).parent / "records.jsonl")
    options = parser.parse_args(arguments)
    if options.clock == "cpu" or options.threads:
        torch.set_num_threads(options.threads or 1)
    hf.logging.set_verbosity_error()
    texts, results = read(), {}
    with tempfile.TemporaryDirectory() as place:
        for row in options.rows:
            print(row, flush=True)
            if row.startswith("predict"):
                results[row] = predicted(row == "predict_one", texts, options)
                continue
            kind = {"causal_fusion": "causal", "masked_fusion": "masked", "task_decoder": "task"}[row]
            made = Path(place) / options.size
            base = Path(resolve_base(ENCODER)[0]) if kind == "masked" else made
            if kind != "masked" and not made.exists():
                decoder(options.size, made)
            results[row] = trained(kind, base, texts, options)
    record = {name: getattr(options, name) for name in ("size", "steps", "rounds", "clock")}
    append_record(
        options.records, {**record, "threads": torch.get_num_threads(), "rows": results,
                          "machine": machine(), "versions": versions()}
    )  # fmt: skip


if __name__ == "__main__":
    main()
