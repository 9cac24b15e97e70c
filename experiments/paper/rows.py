"""Which runs of a ledger count, by size, backbone, data set, method and seed.

    rows = choose(ledger, "cpu")                       # Rows
    rows.runs(("preact", "cifar10"), "mixup+sem")      # {seed: ledger entry}

Sizes are never mixed: a Rows holds one.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from experiments.paper import grid
from experiments.paper.ledger import Book, Ledger
from sem_jax.config import flatten, get_default
from sem_jax.errors import SemError

EPOCHS = get_default().train.epochs
METHOD_FIELDS = ("mixer.", "objective.")  # what makes a run one of a method

Group = tuple[str, str]  # (backbone, dataset)
Seeds = Mapping[int, dict]  # seed -> ledger entry


class Rows(NamedTuple):
    """The runs of one size that count. Keys are (backbone, dataset, method)."""

    size: str
    ledger: Ledger
    book: Book
    done: dict[tuple[str, str, str], dict[int, dict]]
    failed: dict[tuple[str, str, str], dict[int, dict]]
    others: list[dict]  # done entries with other settings than those that count

    def groups(self) -> list[Group]:
        """(backbone, dataset) of all entries, also of those that failed, in the order of the grid's backbones."""
        order = [*grid.BACKBONES]
        found = dict.fromkeys((b, d) for b, d, _ in [*self.done, *self.failed])
        return sorted(found, key=lambda it: order.index(it[0]) if it[0] in order else len(order))

    def methods(self, group: Group) -> list[str]:
        return list(dict.fromkeys(m for b, d, m in [*self.done, *self.failed] if (b, d) == group))

    def runs(self, group: Group, method: str) -> Seeds:
        """The done entries of a method; {} where there are none."""
        return self.done.get((*group, method), {})

    def entries(self, group: Group | None = None) -> list[dict]:
        """Done entries of all methods and seeds, of one group or of all."""
        found = [by_seed for (b, d, _), by_seed in self.done.items() if group in (None, (b, d))]
        return [entry for by_seed in found for entry in by_seed.values()]

    def title(self, group: Group) -> str:
        return f"{grid.net_name(self.size, group[0])}, {group[1]}"


def choose(ledger: Ledger, size: str) -> Rows:
    """The runs of one size.

    What is compared was trained alike: of the runs on a (backbone, data set) those of one recipe count, of the size's
    own number of epochs where there is one, else of the longest, and of these of the newest. A control whose recipe is
    what it is about (`own_recipe`) counts beside those that agree with it in the rest. Where a row was run with several
    settings of its method (alpha, gamma), those of its newest run count. Other lengths are shown by `report_lengths`.

    Raises:
      RunError: there is no ledger.
    """
    book = ledger.read()
    by_group: dict[Group, list[dict]] = {}
    for entry in book.done.values():
        if entry["size"] == size:
            by_group.setdefault((entry["backbone"], entry["dataset"]), []).append(entry)
    done, others = {}, []
    for group, entries in by_group.items():
        lead = max(entries, key=_counts)
        by_row: dict[str, list[dict]] = {}
        for entry in entries:
            if trained_alike(entry, lead):
                by_row.setdefault(entry["method"], []).append(entry)
        counted = set()
        for method, of_row in by_row.items():
            newest = max(of_row, key=lambda entry: entry["time"])["hash"]
            chosen = {e["seed"]: e for e in sorted(of_row, key=lambda e: e["seed"]) if e["hash"] == newest}
            done[*group, method] = chosen
            counted |= {e["id"] for e in chosen.values()}
        others += [e for e in entries if e["id"] not in counted]
    failed: dict[tuple, dict[int, dict]] = {}
    for entry in book.failed.values():
        if entry["size"] == size:
            failed.setdefault((entry["backbone"], entry["dataset"], entry["method"]), {})[entry["seed"]] = entry
    return Rows(size, ledger, book, done, failed, others)


def epochs_of(entry: Mapping) -> int:
    """Length of a run, from its ledger entry."""
    return entry["overrides"].get("train.epochs", EPOCHS)


def recipe(entry: Mapping) -> dict:
    """How a run was trained apart from its method: net, data, optimizer, length (before a control's factor)."""
    fields = {n: value for n, value in entry["overrides"].items() if not n.startswith(METHOD_FIELDS)}
    return fields | {"train.epochs": epochs_of(entry) // _factor(entry)}


def beside(entry: Mapping) -> float:
    """Seconds of a run beside its training: start, compiling, scores. In an old entry of the last process alone."""
    guess = entry.get("wall_time_s", 0.0) - entry.get("train_time_s", 0.0)
    return entry.get("beside_time_s", max(0.0, guess))


def spent(entry: Mapping) -> float:
    """Seconds of a run in all its processes; of an ES run, from its sibling's switch on."""
    trained, wall = entry.get("train_time_s", 0.0), entry.get("wall_time_s", 0.0)
    if "beside_time_s" in entry:
        return trained - entry.get("shared_time_s", 0.0) + entry["beside_time_s"]
    return wall if entry.get("branched_from") else max(wall, trained)


def own_recipe(entry: Mapping) -> set[str]:
    """The fields of a run's recipe that its row is about: a control's own, as the data's mean of "sem-own"."""
    return {name for name in own_fields(entry) if not name.startswith(METHOD_FIELDS)}


def own_fields(entry: Mapping) -> set[str]:
    """The fields that a run's row sets as a control; empty for other rows."""
    control = grid.CONTROLS.get(entry["method"])
    return set(control.overrides) if control else set()


def trained_alike(a: Mapping, b: Mapping, *, but: Collection[str] = ()) -> bool:
    """Whether two runs have one recipe, but for the fields of `but` and those that their rows are about."""
    loose = {*but, *own_recipe(a), *own_recipe(b)}
    one, other = ({name: value for name, value in recipe(it).items() if name not in loose} for it in (a, b))
    return one == other


def mixed_alike(a: Seeds, b: Seeds) -> bool:
    """Whether the runs of two rows mix alike, but for what a control is about; a row has one setting."""
    entries = [*a.values(), *b.values()]
    loose = set().union(*map(own_fields, entries))
    if any(_factor(entry) > 1 for entry in entries):
        loose.add("mixer.stop_epoch")  # follows the length
    settings = [{n: v for n, v in e["overrides"].items() if n.startswith("mixer.") and n not in loose} for e in entries]
    return all(it == settings[0] for it in settings)


def not_the_sizes(entry: Mapping) -> dict:
    """The fields of a run's recipe that were set otherwise than its size has them."""
    try:
        cell = grid.Cell(*(entry[name] for name in ("size", "backbone", "dataset", "method", "seed")))
        own = recipe({"method": cell.method, "overrides": grid.differences(grid.make_config(cell))})
    except SemError:  # of a version that had other rows
        return {}
    default = dict(flatten(get_default()))
    found = recipe(entry)
    both = {name: found.get(name, default.get(name)) for name in {*own, *found} if own.get(name) != found.get(name)}
    return dict(sorted(both.items()))


def _factor(entry: Mapping) -> int:
    control = grid.CONTROLS.get(entry["method"])
    return control.epochs if control else 1


def _counts(entry: Mapping) -> tuple[bool, bool, int, str]:
    """Larger for an entry whose recipe counts before another's."""
    return not own_recipe(entry), _own_length(entry), recipe(entry)["train.epochs"], entry["time"]


def _own_length(entry: Mapping) -> bool:
    size = grid.SIZES.get(entry["size"])
    own = size.overrides.get("train.epochs", EPOCHS) if size else EPOCHS
    return epochs_of(entry) == own * _factor(entry)
