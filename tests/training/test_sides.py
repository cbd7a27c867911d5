"""Encoder-decoders: the two sides of a batch, against transformers' own loss and the text itself."""

from __future__ import annotations

import pytest
import torch

from guidebook.adapters.host import Host
from guidebook.data.corpus import read_corpus
from guidebook.data.domains import Domain
from guidebook.errors import InputError
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage
from guidebook.tasks.heads import pool
from guidebook.training.model import StageModel
from guidebook.training.plan import StagePlan, inputs_of, pad
from guidebook.training.prediction import input_of
from guidebook.training.run import Material, Run
from guidebook.training.settings import FuseTraining, Training
from tiny import LABELS, TEXTS

TRAIN = Training(tokens_per_batch=96, max_length=16, fuse=FuseTraining(tokens=400, mask_rate=0.3))


@pytest.fixture(params=["t5", "bart"])
def host(request, tiny_base) -> Host:
    host = Host.load(str(tiny_base(request.param)))
    host.model.eval()
    return host


def run(host: Host) -> Run:
    corpus = read_corpus([Domain("source", texts=TEXTS, labels=LABELS)], [Domain("target", texts=TEXTS[:5])])
    made = Material(corpus, host.tokenizer, length=16, task_length=16, causal=False)
    return Run(made, corpus.targets[0], 0, None)


def test_the_loss_is_transformers_own(host: Host) -> None:
    """The slow way: labels with -100 where there is nothing, and the model shifts them itself."""
    stage = Stage("fuse", {"lm": LanguageModelling(run(host).text())}, train={})
    plan = StagePlan(stage, TRAIN, 0, input_of(host))
    model = StageModel(host, stage, {}).eval()
    for step in range(len(plan)):
        batch = plan[step]
        inputs = batch["inputs"]
        labels = torch.full_like(inputs["decoder_input_ids"], -100).flatten()
        labels[batch["positions"]] = batch["targets"]
        labels = labels.view_as(inputs["decoder_input_ids"])
        assert torch.equal(labels != -100, inputs["decoder_attention_mask"].bool())
        with torch.no_grad():
            own = host.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels)
            torch.testing.assert_close(model(batch)["loss"], own.loss, rtol=1e-5, atol=1e-6)
        assert inputs["decoder_input_ids"].shape[1] == inputs["decoder_attention_mask"].sum(1).max()


def test_a_row_of_the_task_does_not_hang_on_its_padding(host: Host) -> None:
    """Encoder and decoder read the row; its last state is that of the row alone, whatever else is in the batch."""
    stream, feed = run(host).source, input_of(host)
    stage = Stage("task", {"task": TaskLoss(stream)}, train={})
    batch = StagePlan(stage, TRAIN, 0, feed)[0]
    model = StageModel(host, stage, {})
    with torch.no_grad():
        view = model._views(batch)[next(iter(batch["rows"]))]
        rows = pool(view.hidden, view.mask, host.placement.pooling)
        assert host.placement.pooling == "last"
        for row, mask in enumerate(batch["inputs"]["attention_mask"].bool()):
            ids = batch["inputs"]["input_ids"][row][mask][None]
            own = host.model(**inputs_of(ids, torch.ones_like(ids).bool(), feed), output_hidden_states=True)
            torch.testing.assert_close(rows[row], own.decoder_hidden_states[-1][0, -1], rtol=1e-4, atol=1e-5)


def test_the_decoder_never_sees_what_it_has_to_write_next(host: Host) -> None:
    stream, feed = run(host).source, input_of(host)
    ids, mask = pad(stream, torch.arange(2).numpy(), int(stream.tokens.lengths[:2].max()), feed.specials.pad)
    read = inputs_of(ids, mask, feed)["decoder_input_ids"]
    assert read[:, 0].tolist() == [host.config.decoder_start_token_id] * 2
    assert torch.equal(read[:, 1:], ids[:, :-1])


def test_a_base_that_does_not_say_where_its_decoder_starts_is_refused(host: Host) -> None:
    host.config.decoder_start_token_id = None
    with pytest.raises(InputError, match="no decoder_start_token_id"):
        input_of(host)
