"""An ES run that starts from its sibling's checkpoint ends bit for bit where training it alone ends."""

import json

import jax
import numpy as np

from experiments.paper.branch import start_from
from sem_jax.runs.checkpoint import steps
from sem_jax.runs.records import read_metrics
from sem_jax.training import loop
from tests.helpers.training import configure, records, tiny_backbone  # noqa: F401

CHANGES = {"train__epochs": 8, "train__keep": 1, "train__checkpoint_every": 3, "train__batch_size": 512}


def test_the_branch_is_the_run_alone_bit_for_bit(tmp_path):
    sibling = configure(method="cutmix+sem", train__keep_epochs=(6,), **CHANGES)
    loop.train_and_evaluate(sibling, str(tmp_path / "sibling"))
    per_epoch = 1337 // 512
    assert steps(tmp_path / "sibling/checkpoints") == [6 * per_epoch, 8 * per_epoch], "kept beside the latest one"
    es = configure(method="cutmix+es+sem", **CHANGES)
    assert es.mixer.stop_epoch == 6
    assert start_from(tmp_path / "sibling", tmp_path / "branch", es)
    assert [r["epoch"] for r in read_metrics(tmp_path / "branch")] == [1, 2, 3, 4, 5, 6]
    branch = loop.train_and_evaluate(es, str(tmp_path / "branch"))
    alone = loop.train_and_evaluate(es, str(tmp_path / "alone"))
    jax.tree.map(np.testing.assert_array_equal, branch, alone)
    assert records(tmp_path / "branch") == records(tmp_path / "alone")
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("branch", "alone")]
    assert results[0]["test_nll"] == results[1]["test_nll"] and results[0]["method"] == "cutmix+es+sem"
    whole = loop.train_and_evaluate(sibling, str(tmp_path / "sibling"))  # untouched, and another model
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (whole.params, branch.params)), strict=True))
    assert start_from(tmp_path / "sibling", tmp_path / "branch", es), "what is there is left alone"
    assert json.loads((tmp_path / "branch/result.json").read_text()) == results[0]


def test_another_runs_checkpoint_is_not_taken(tmp_path):
    changes = CHANGES | {"train__epochs": 4}
    loop.train_and_evaluate(
        configure(method="mixup+sem", train__keep_epochs=(3,), **changes), str(tmp_path / "sibling")
    )
    for name, other in {
        "gamma": {"method": "mixup+es"},
        "mixer": {"method": "cutmix+es+sem"},
        "rate": {"method": "mixup+es+sem", "optim__learning_rate": 0.1},
        "switch": {"method": "mixup+es+sem", "mixer__stop_epoch": 2},
    }.items():
        assert not start_from(tmp_path / "sibling", tmp_path / name, configure(**changes | other))
        assert not (tmp_path / name).exists()
    assert not start_from(tmp_path / "nowhere", tmp_path / "x", configure(method="mixup+es+sem", **changes))
    assert start_from(tmp_path / "sibling", tmp_path / "right", configure(method="mixup+es+sem", **changes))
