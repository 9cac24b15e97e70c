"""The suite of the test split: accuracy, likelihood and confusion."""

from collections.abc import Sequence

import numpy as np

from sem_jax.evaluation.context import Context, Result
from sem_jax.evaluation.measures import metrics
from sem_jax.evaluation.measures.ood import msp
from sem_jax.evaluation.report import figures
from sem_jax.evaluation.report.gallery import MOST
from sem_jax.interfaces import Split


def clean(context: Context) -> Result:
    """Accuracy, likelihood and confusion on the test split."""
    test, names = context.split("test"), context.run.data.class_names
    logits = context.outputs("test", test.images).logits
    matrix = metrics.confusion_matrix(logits, test.labels)
    accuracy = metrics.per_class_accuracy(logits, test.labels)
    result = Result(scalars=metrics.classification(logits, test.labels) | {"items": len(test.labels)})
    result.percent("top1", "top5")
    result.items["correct test"] = metrics.correct(logits, test.labels)
    result.items["nll test"] = metrics.nll_of_each(logits, test.labels)
    result.note = "Test split, checked by its fingerprint." if context.loaded.verified else _unverified(context)
    rows = [[name, accuracy[i], int(matrix[i].sum()), *_confused(matrix, names, i)] for i, name in enumerate(names)]
    columns = ["class", "accuracy", "items", "most often taken for", "share"]
    units = {"accuracy": "%", "share": "%"}
    result.tables.append({"title": "By class", "columns": columns, "rows": rows, "units": units})
    caption = "Confusion matrix of the test split, rows normalised; the colour grows with the square root."
    result.picture("confusion", figures.confusion_matrix(matrix, names), caption)
    _confident_errors(test, names, logits, result)
    return result


def _confident_errors(test: Split, names: Sequence[str], logits: np.ndarray, result: Result) -> None:
    """Adds the gallery of the wrong answers with the highest softmax probability."""
    answers, confidence = logits.argmax(axis=1), msp(logits)
    labels = np.asarray(test.labels)
    wrong = np.flatnonzero(answers != labels)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")[:MOST]]
    facts = [
        {
            "item": int(i),
            "true": names[int(labels[i])],
            "taken for": names[int(answers[i])],
            "confidence": confidence[i],
        }
        for i in chosen
    ]
    captions = [f"{it['true']}, taken for {it['taken for']}, {100 * it['confidence']:.1f}%" for it in facts]
    caption = f"The most confident of the {len(wrong):,} errors on test: true class, answer, its probability."
    result.gallery("errors", np.asarray(test.images[chosen]), facts, captions, caption)


def _unverified(context: Context) -> str:
    reason = str(context.loaded.absent).partition("\n")[0]
    return f"Test split; its fingerprint could not be compared with the run's, only its size and classes ({reason})."


def _confused(matrix: np.ndarray, names: Sequence[str], row: int) -> list:
    others = matrix[row].copy()
    others[row] = 0
    if not others.any():
        return ["–", 0.0]
    worst = int(others.argmax())
    return [names[worst], others[worst] / matrix[row].sum()]
