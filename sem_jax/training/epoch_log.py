"""Reports an epoch: its record in metrics.jsonl, and its line on the terminal."""

from sem_jax.training.calls import Sums

RENAMED = {"accuracy": "train_accuracy", "clean_accuracy": "train_clean_accuracy"}  # a record has other splits' too


def record_of(sums: Sums, *, step: int, epoch: int, mixing: bool, learning_rate: float) -> dict:
    """The record without scores and speed: means over the epoch's finite steps, and the last step's learning rate."""
    means = {RENAMED.get(name, name): mean.value for name, mean in sums.means.items()}
    first = {name: means[name] for name in ("loss", "label_loss", "train_accuracy")}
    record = {"step": step, "epoch": epoch, "mixing": mixing, "learning_rate": learning_rate} | first | means
    if "penalty" in means:
        record["penalty_relative"] = means["penalty"] / max(means["feature_norm"], 1e-12)
    if sums.bad_steps:
        record["skipped_steps"] = sums.bad_steps
    return record


def line_of(record: dict, epochs: int) -> str:
    """One epoch in one line of text."""
    text = f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}  loss {record['loss']:.4f}"
    if "penalty" in record:
        text += f"  penalty {record['penalty']:.3f} ({record['penalty_relative']:.1%} of the feature norm)"
    text += f"  train {record['train_accuracy']:.2%}"
    for split in ("val", "test"):
        if f"{split}_accuracy" in record:
            text += f"  {split} {record[f'{split}_accuracy']:.2%}"
        if f"ema_{split}_accuracy" in record:
            text += f" (averaged weights {record[f'ema_{split}_accuracy']:.2%})"
    speed = record["images_per_s"]
    return text + f"  {speed:,.{0 if speed >= 10 else 1}f} images/s"
