"""The report on hand-made ledgers: missing, failed and duplicate runs, sizes apart, substitutes by their own names."""

import csv

import numpy as np
import pytest

from experiments.paper import grid, report, report_figures, report_mixers, stats
from experiments.paper.ledger import Ledger
from experiments.paper.rows import choose
from experiments.paper.scores import metrics_of, read_paper, score
from sem_jax.errors import RunError
from tests.helpers.ledgers import entry, failure


def rows_of(table):
    """A table of the report as {first cell: {column: cell}}."""
    return {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}


def built(ledger, size="cpu"):
    record, figures, numbers = report.make_report(ledger, size)
    return record["suites"], figures, numbers


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setattr(stats.auroc_intervals, "__kwdefaults__", {"draws": 50, "seed": 0})
    return Ledger(tmp_path / "ledger")


def test_means_deviations_and_the_share_of_sem(ledger):
    for seed, (without, with_sem) in enumerate([(0.50, 0.54), (0.51, 0.56), (0.55, 0.57)]):
        ledger.append(*entry("mixup", seed, accuracy=without))
        ledger.append(*entry("mixup+sem", seed, accuracy=with_sem))
    ledger.append(*entry("cutmix", 0, accuracy=0.6))
    parts, _, _ = built(ledger)
    table = rows_of(parts["Table 1: accuracy"]["tables"][0])
    ours = "ours, accuracy (%)"
    assert table["mixup"][ours] == "52.00 ± 2.65 (n=3)" and table["mixup+sem"][ours] == "55.67 ± 1.53 (n=3)"
    assert table["cutmix"][ours] == "60.00 (n=1)", "one seed has no deviation"
    assert table["mixup+sem"]["SEM's share, ours"].startswith("+3.67 [") and table["mixup+sem"]["paper"] == "96.45"
    assert table["mixup+sem"]["SEM's share, paper"] == "+0.68"
    assert table["erm"][ours] == "" and table["erm"]["empty or fewer because"] == "no run"
    # The interval against one that draws items one by one.
    book = ledger.read()
    items = {(e["method"], e["seed"]): ledger.items(e)["correct test"] for e in book.done.values()}
    difference = np.mean([items["mixup+sem", s] * 1.0 - items["mixup", s] for s in range(3)], axis=0)
    rng = np.random.default_rng(1)
    slow = np.quantile([100 * difference[rng.integers(0, 200, 200)].mean() for _ in range(4000)], [0.025, 0.975])
    rows, group = choose(ledger, "cpu"), ("preact", "cifar10")
    found = score(rows, metrics_of(rows.entries(group))[0], group, "mixup+sem")
    assert found.sem.interval and np.abs(np.subtract(found.sem.interval, slow)).max() < 0.08 * (slow[1] - slow[0])


def test_no_difference_to_the_paper_but_at_its_own_size(ledger):
    ledger.append(*entry("mixup", 0, size="cpu", accuracy=0.5))
    ledger.append(*entry("mixup", 0, size="paper", accuracy=0.955))
    small = rows_of(built(ledger)[0]["Table 1: accuracy"]["tables"][0])["mixup"]
    assert small["paper"] == "95.77" and "ours - paper" not in small and small["ours, accuracy (%)"] == "50.00 (n=1)"
    full = rows_of(built(ledger, "paper")[0]["Table 1: accuracy"]["tables"][0])["mixup"]
    assert full["ours, accuracy (%)"] == "95.50 (n=1)" and full["ours - paper"] == "-0.27"


def test_seeds_that_only_one_of_a_pair_has_are_in_its_mean_and_not_in_the_share(ledger):
    for seed in range(3):
        ledger.append(*entry("mixup", seed, accuracy=0.5))
    ledger.append(*entry("mixup+sem", 1, accuracy=0.52))
    line = rows_of(built(ledger)[0]["Table 1: accuracy"]["tables"][0])["mixup+sem"]
    assert line["ours, accuracy (%)"] == "52.00 (n=1)" and line["SEM's share, ours"].endswith("(n=1)")


def test_failed_duplicate_and_torn(ledger):
    ledger.append(*entry("mixup", 0, accuracy=0.3, time="2026-01-01T00:00:00"))
    ledger.append(*entry("mixup", 0, accuracy=0.4, time="2026-01-02T00:00:00"))
    ledger.append(failure("mixup", 1, error="RunError: the disk is full"))
    ledger.append(failure("cutmix", 2, error="RunError: Not finite at step 7"))
    with open(ledger.path, "ab") as file:
        file.write(b'{"id": "half')
    parts, _, _ = built(ledger)
    table = rows_of(parts["Table 1: accuracy"]["tables"][0])
    assert table["mixup"]["ours, accuracy (%)"] == "40.00 (n=1)"
    assert table["mixup"]["empty or fewer because"] == "seed 1 failed: RunError: the disk is full"
    assert table["cutmix"]["ours, accuracy (%)"] == "" and "Not finite" in table["cutmix"]["empty or fewer because"]
    own = parts["Ledger"]
    assert own["scalars"]["runs that count"] == 1 and own["scalars"]["failed"] == 2
    assert own["scalars"]["entered more than once"] == 1 and own["scalars"]["lines not readable"] == 1
    assert [t["title"] for t in own["tables"]] == ["Failed runs", "Entered more than once", "Runs that count"]


def test_runs_with_other_settings_are_not_averaged(ledger):
    ledger.append(*entry("mixup", 0, accuracy=0.3, time="2026-01-01", settings=(("mixer.alpha", 0.2),)))
    ledger.append(*entry("mixup", 1, accuracy=0.4, time="2026-01-02"))
    parts, _, _ = built(ledger)
    assert rows_of(parts["Table 1: accuracy"]["tables"][0])["mixup"]["ours, accuracy (%)"] == "40.00 (n=1)"
    assert parts["Ledger"]["scalars"]["with other settings"] == 1


def test_hours_are_those_of_all_runs_and_all_their_processes(ledger):
    for seed, settings in ((0, ()), (1, (("mixer.alpha", 0.2),))):
        made, _ = entry("mixup", seed, settings=settings, wall_time_s=100.0, train_time_s=3600.0)
        ledger.append(made)
    assert built(ledger)[0]["Ledger"]["scalars"]["hours of all runs"] == 2.0


def test_what_is_compared_was_trained_alike_and_what_was_set_otherwise_is_said(ledger):
    small = (("data.train_size", 500),)
    ledger.append(*entry("mixup", 0, accuracy=0.5, time="2026-01-01"))
    ledger.append(*entry("mixup", 0, accuracy=0.3, time="2026-01-02", settings=small))
    ledger.append(*entry("mixup+sem", 0, accuracy=0.33, time="2026-01-02", settings=small))
    ledger.append(*entry("mixup-x2", 0, accuracy=0.35, time="2026-01-02", settings=small))
    ledger.append(*entry("cutmix", 0, accuracy=0.6, time="2026-01-01"))
    parts, _, _ = built(ledger)
    table = parts["Table 1: accuracy"]["tables"][0]
    line = rows_of(table)
    assert line["mixup+sem"]["SEM's share, ours"].startswith("+3.00 [")
    assert line["mixup"]["ours, accuracy (%)"] == "30.00 (n=1)" and line["cutmix"]["ours, accuracy (%)"] == ""
    assert "Set otherwise in these runs: data.train_size=500." in table["note"]
    assert parts["Ledger"]["scalars"]["with other settings"] == 2
    # With the size's own recipe newer, that one counts again, and nothing is said of it.
    ledger.append(*entry("mixup+sem", 0, accuracy=0.54, time="2026-01-03"))
    table = built(ledger)[0]["Table 1: accuracy"]["tables"][0]
    assert rows_of(table)["mixup+sem"]["SEM's share, ours"].startswith("+4.00 [") and "otherwise" not in table["note"]


def test_there_is_no_share_where_the_mixing_differs(ledger):
    ledger.append(*entry("mixup", 0, accuracy=0.5, settings=(("mixer.alpha", 0.2),)))
    ledger.append(*entry("mixup+sem", 0, accuracy=0.6))
    line = rows_of(built(ledger)[0]["Table 1: accuracy"]["tables"][0])["mixup+sem"]
    assert line["ours, accuracy (%)"] == "60.00 (n=1)" and "SEM's share, ours" not in line
    assert line["empty or fewer because"] == "no difference: mixup was mixed with other settings"


def test_no_part_has_a_difference_where_the_mixing_differs(ledger):
    """Nor a figure; a control whose length is twice the others' mixes as they do."""
    other, mixed = (("mixer.alpha", 0.2),), "mixup was mixed with other settings"
    for method in ("mixup", "fmix", "mixup-x2"):
        ledger.append(*entry(method, 0, error_at_half=0.4))
    for method in ("mixup+sem", "sem-gamma1", "fmix+sem"):
        ledger.append(*entry(method, 0, error_at_half=0.3, settings=other))
    parts, figures, _ = built(ledger)
    lines = {row[0]: row for row in parts["Fig. 3: equivariance"]["tables"][0]["rows"]}
    assert lines["mixup+sem"][4] == lines["sem-gamma1"][4] == lines["mixup+sem"][6] == mixed
    assert lines["mixup-x2"][4][0] in "+-"
    control = rows_of(parts["Controls"]["tables"][0])
    assert control["sem-gamma1"]["against mixup"] == "" and mixed in control["sem-gamma1"]["empty because"]
    assert control["sem-gamma1"]["against mixup+sem"].startswith("+0.00 [")
    assert control["mixup-x2"]["against mixup"].startswith("+0.00 [")
    of_fmix = next(row for row in parts["Every mixer"]["tables"][0]["rows"] if row[0] == "fmix")
    assert of_fmix[3:5] == ["fmix was mixed with other settings", ""] and of_fmix[9] == ""
    assert not any("pareto" in name for name in figures)
    drawn = report_figures.every_mixer(
        {("preact", "cifar10"): report_mixers.lines(choose(ledger, "cpu"), ("preact", "cifar10"))},
        choose(ledger, "cpu"),
    )
    assert not drawn.axes[0].lines, "neither of the two pairs is compared"


@pytest.mark.parametrize("last", ["mixup-own", "mixup"])
def test_controls_with_a_recipe_of_their_own_stand_beside_the_nine(ledger, last):
    """Whichever ran last; what is set otherwise in all runs is said of the nine's recipe."""
    methods = ["mixup", "mixup+sem", "mixup-own", "sem-own"]
    for at, method in enumerate(sorted(methods, key=lambda it: it == last)):
        made = entry(method, 0, size="paper", accuracy=0.5, time=f"2026-01-0{at + 1}", settings=(("data.std", ()),))
        ledger.append(*made)
    rows = choose(ledger, "paper")
    assert sorted(m for *_, m in rows.done) == sorted(methods) and not rows.others
    parts, _, _ = built(ledger, "paper")
    table = parts["Table 1: accuracy"]["tables"][0]
    assert rows_of(table)["mixup+sem"]["ours, accuracy (%)"] == "50.00 (n=1)"
    assert "Set otherwise in these runs: data.std=()." in table["note"]
    assert rows_of(parts["Controls"]["tables"][0])["sem-own"]["against mixup"].startswith("+0.00 [")
    # Those of another recipe do not.
    ledger.append(*entry("sem-own", 1, size="paper", time="2026-02-01", settings=(("optim.learning_rate", 0.3),)))
    assert [e["seed"] for e in choose(ledger, "paper").others] == [1]


def test_sem_by_the_librarys_own_reading_is_compared_with_mixup_by_it(ledger):
    for method, error in {"mixup": 0.5, "mixup-own": 0.4, "sem-own": 0.3}.items():
        ledger.append(*entry(method, 0, size="paper", error_at_half=error))
    parts, _, _ = built(ledger, "paper")
    lines = {row[0]: row for row in parts["Fig. 3: equivariance"]["tables"][0]["rows"]}
    assert -0.15 < float(lines["sem-own"][4].split(" [")[0]) < -0.05, "not mixup's 0.5"


def test_substitutes_stand_in_tables_of_their_own_without_the_papers_numbers(ledger):
    ledger.append(*entry("mixup", 0, size="paper"))
    parts, _, numbers = built(ledger, "paper")
    table2, table3 = parts["Table 2: shifted test sets"], parts["Table 3: out-of-distribution detection"]
    titles = [t["title"] for t in table2["tables"]]
    assert any("generated corruptions of cifar10 (50 images)" in t for t in titles)
    assert any("CINIC-10 (100 images)" in t for t in titles) and not any("CIFAR-10.1" in t for t in titles)
    for table in [*table2["tables"][:-1], *table3["tables"][:-1]]:
        assert "paper" not in table["columns"] and "ours - paper" not in table["columns"], table["title"]
    absent = rows_of(table2["tables"][-1])
    assert {name.rpartition(": ")[2] for name in absent} == {"CIFAR-10-C", "CIFAR-10.1", "CIFAR-10.2"}
    assert all(line["why there is no number"] == "its images were not found" for line in absent.values())
    # SVHN is here, but not all of it.
    assert {name.rpartition(": ")[2] for name in rows_of(table3["tables"][-1])} == {"SVHN", "LSUN-Crop"}
    assert all(it.paper is None for *_, metric, it in numbers if metric.table != "1")


def test_the_papers_own_sets_get_the_difference(ledger):
    made, items = entry("mixup", 0, size="paper", accuracy=0.95)
    made["suites"]["shift"]["scalars"] = {"top1 CIFAR-10.1 v4": 0.9, "top1 CIFAR-10.1 v6": 0.91}
    made["suites"]["corruptions"]["scalars"] |= {"mean accuracy": 0.79, "items": 10_000}
    made["suites"]["ood"]["scalars"] = {"AUROC msp SVHN": 0.9}
    made["sets"] = {
        "CIFAR-10.1 v4": {"items": 2021},
        "CIFAR-10.1 v6": {"items": 2000},
        "CIFAR-10-C": {"images": "published", "items": 10_000},
        "SVHN": {"items": 26_032},
    }
    ledger.append(made, items)
    parts, _, numbers = built(ledger, "paper")
    shown = {metric.set: (it.mean, it.paper) for _, m, metric, it in numbers if m == "mixup"}
    assert (
        shown["CIFAR-10.1 v4"] == (90.0, 89.41)
        and shown["CIFAR-10-C"] == (79.0, 78.8)
        and shown["SVHN"] == (90.0, 89.31)
    )
    assert shown["CIFAR-10.1 v6 (2,000 images)"] == (91.0, None)
    line = rows_of(parts["Table 2: shifted test sets"]["tables"][0])["mixup"]
    assert line["ours - paper"] == "+0.20"


def test_a_shift_set_whose_name_ends_in_a_number_is_no_corruption(ledger):
    for name in ("mixup", "mixup+sem"):
        made, items = entry(name, 0)
        items["correct Set 1"] = np.full(50, name == "mixup")  # as many as the corrupted images
        ledger.append(made, items)
    rows = choose(ledger, "cpu")
    found = [it for it in metrics_of(rows.entries()) if it.set.startswith("generated")]
    read = [ledger.items(rows.runs(("preact", "cifar10"), m)[0]) for m in ("mixup+sem", "mixup")]
    without = [{n: v for n, v in items.items() if n != "correct Set 1"} for items in read]
    assert found[0].intervals([read]) == found[0].intervals([without])


def test_a_number_without_items_has_no_interval_and_says_so(ledger):
    ledger.append(entry("mixup", 0)[0])
    ledger.append(*entry("mixup+sem", 0, accuracy=0.6))
    line = rows_of(built(ledger)[0]["Table 1: accuracy"]["tables"][0])["mixup+sem"]
    assert line["SEM's share, ours"] == "+10.00 (no items: no interval) (n=1)"


def test_without_items_every_number_is_there_and_what_is_left_out_is_said_with_its_command(ledger, tmp_path, capsys):
    """As the ledgers in experiments/results are kept: everything but the intervals, and the command that makes them."""
    for seed in range(2):
        for method, error in {
            "mixup": 0.4,
            "mixup+sem": 0.3,
            "fmix": 0.5,
            "fmix+sem": 0.45,
            "mixup+clean": 0.4,
        }.items():
            ledger.append(entry(method, seed, accuracy=0.5 + 0.1 * ("sem" in method), error_at_half=error)[0])
    for epochs in (12, 3):
        ledger.append(entry("erm", 0, settings=(("train.epochs", epochs),))[0])
    parts, figures, _ = built(ledger)
    left_out = parts["What is left out"]
    assert left_out["reason"].startswith("12 of 12 runs have no items here") and left_out["status"] == "missing"
    assert "python -m experiments.paper --table=all --size=cpu --backbones=preact" in left_out["remedy"]
    assert "--methods=mixup,mixup+sem,fmix,fmix+sem,mixup+clean,erm --seeds=0,1" in left_out["remedy"]
    share = "+10.00 (no items: no interval)"
    assert rows_of(parts["Table 1: accuracy"]["tables"][0])["mixup+sem"]["SEM's share, ours"] == f"{share} (n=2)"
    line = next(row for row in parts["Fig. 3: equivariance"]["tables"][0]["rows"] if row[0] == "mixup+sem")
    assert line[4] == "-0.100 (no items: no interval)"
    assert rows_of(parts["Controls"]["tables"][0])["mixup+sem"]["against mixup"] == share
    assert {row[0]: row for row in parts["Every mixer"]["tables"][0]["rows"]}["fmix"][3].startswith("-0.050 (no items")
    assert {"accuracy", "sem_share", "gammas-preact-cifar10", "every_mixer", "lengths"} <= set(figures)
    assert report.main(["--ledger", str(ledger.folder), "--out", str(tmp_path / "out")]) == 0
    assert "12 of 12 runs have no items here" in capsys.readouterr().out
    assert "no paired interval" in (tmp_path / "out/report.md").read_text()


def test_with_all_items_nothing_is_left_out(ledger):
    ledger.append(*entry("mixup", 0))
    assert "What is left out" not in built(ledger)[0]


def test_equivariance_per_gamma_and_controls(ledger):
    errors = {"mixup": 0.40, "sem-gamma0.1": 0.35, "mixup+sem": 0.30, "sem-gamma1": 0.20, "mixup+clean": 0.41}
    for method, error in errors.items():
        for seed in range(2):
            ledger.append(*entry(method, seed, error_at_half=error))
    parts, figures, _ = built(ledger)
    table = parts["Fig. 3: equivariance"]["tables"][0]
    assert [(row[0], row[1]) for row in table["rows"]] == [
        ("mixup", "0"),
        ("mixup+clean", "0"),
        ("sem-gamma0.1", "0.1"),
        ("mixup+sem", "0.3"),
        ("sem-gamma1", "1"),
    ]
    change = dict((row[0], row[4]) for row in table["rows"])
    assert change["mixup"] == "" and -0.13 < float(change["mixup+sem"].split(" [")[0]) < -0.07
    assert {"equivariance-preact-cifar10", "gamma-preact-cifar10"} <= set(figures)
    control = rows_of(parts["Controls"]["tables"][0])
    assert list(control) == ["mixup", "mixup+sem", "mixup+clean", "sem-gamma0.1", "sem-gamma1"]
    assert control["mixup+clean"]["against mixup"].startswith("+0.00 [")


def test_controls_of_another_mixer_and_a_net_whose_features_are_all_alike(ledger):
    for method in ("cutmix", "cutmix+sem", "cutmix-sem-warmup", "mixup", "mixup+sem"):
        ledger.append(*entry(method, 0, accuracy=0.6 if method == "cutmix-sem-warmup" else 0.5))
    collapsed, items = entry("sem-wrong-pairs", 0, accuracy=0.1)
    scores = collapsed["suites"]["equivariance"]["scalars"]
    scores |= dict.fromkeys(("relative error mixup", "relative error CutMix", "relative error own mixer"))
    items |= {name: np.full_like(values, np.nan) for name, values in items.items() if "relative" in name}
    ledger.append(collapsed, items)
    parts, _, _ = built(ledger)
    of_mixup, of_cutmix = parts["Controls"]["tables"]
    assert of_mixup["title"].endswith(": mixup") and of_cutmix["title"].endswith(": cutmix")
    wrong, warm = rows_of(of_mixup)["sem-wrong-pairs"], rows_of(of_cutmix)["cutmix-sem-warmup"]
    assert wrong["relative error, mixup"] == "" and wrong["against mixup"].startswith("-40.00 [")
    assert warm["against cutmix+sem"].startswith("+10.00 [") and warm["relative error, CutMix"] == "0.400"
    line = next(row for row in parts["Fig. 3: equivariance"]["tables"][0]["rows"] if row[0] == "sem-wrong-pairs")
    assert "features all alike" in line


def test_files_one_folder_a_size_and_a_page_that_needs_nothing(tmp_path, ledger, capsys):
    for method in ("mixup", "mixup+sem"):
        ledger.append(*entry(method, 0))
    ledger.append(*entry("mixup", 0, size="gpu30"))
    assert report.main(["--ledger", str(ledger.folder), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    for size, count in (("cpu", 2), ("gpu30", 1)):
        assert f"size {size}: {count} runs" in said
        page = (tmp_path / "out" / size / "report.html").read_text()
        assert '<img src="data:image/png;base64,' in page and "http:" not in page and "https:" not in page
        assert grid.SIZES[size].says.split(",")[0] in (tmp_path / "out" / size / "report.md").read_text()
    with open(tmp_path / "out/cpu/numbers.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    first = next(line for line in lines if line["method"] == "mixup" and line["table"] == "1")
    assert (first["mean"], first["sd"], first["n"], first["paper"]) == ("50.0", "", "1", "95.77")
    with pytest.raises(SystemExit):
        report.main(["--ledger", str(ledger.folder), "--out", str(tmp_path), "--size", "paper"])
    with pytest.raises(SystemExit):
        report.main(["--ledger", str(tmp_path / "nowhere"), "--out", str(tmp_path)])


def test_the_papers_numbers_are_all_there():
    paper = read_paper()
    assert len(paper) == 54 + 72 + 72
    assert paper["1", "mixup+es+sem", "wrn28_10", "tiny_imagenet", "tiny_imagenet"] == 70.61
    assert paper["3", "cutmix", "preact_resnet18", "cifar10", "lsun_crop"] == 98.10
    assert {key[1] for key in paper} == set(grid.METHODS)


@pytest.mark.parametrize(("code", "images"), [("cifar10_1", 2021), ("cifar10_2", 2000)])
def test_which_version_of_a_set_the_paper_scored_can_be_told_from_its_decimals(code, images):
    """An accuracy is k of n images, rounded or cut to two decimals, as are 17 of 18 here, and 15 of CIFAR-10.2's."""
    values = [round(100 * value) for key, value in read_paper().items() if key[4] == code]
    possible = {n: {f(10_000 * k / n + 1e-9) for k in range(n + 1) for f in (round, int)} for n in (2000, 2021)}
    fit = {n: sum(value in those for value in values) for n, those in possible.items()}
    assert len(values) == 18 and fit == {"cifar10_1": {2000: 7, 2021: 17}, "cifar10_2": {2000: 15, 2021: 5}}[code]
    assert max(fit, key=lambda n: fit[n]) == images


def test_a_ledger_with_failures_alone(ledger):
    ledger.append(failure("mixup", 0))
    parts, figures, _ = built(ledger)
    assert not figures and parts["Fig. 3: equivariance"]["status"] == "missing"
    (table,) = parts["Table 1: accuracy"]["tables"]
    assert table["rows"][0][1] == "all of its runs failed"


def test_an_empty_ledger_is_refused_in_words(tmp_path):
    with pytest.raises(RunError, match="no ledger"):
        Ledger(tmp_path).read()


def test_every_mixer_beside_itself_with_sem_on_each_backbone(ledger):
    for backbone in ("preact", "vit"):
        for mixer, error in (("mixup", 0.40), ("fmix", 0.50)):
            ledger.append(*entry(mixer, 0, backbone=backbone, error_at_half=error, accuracy=0.5))
            lower = error - 0.10 if backbone == "preact" else error + 0.05
            ledger.append(*entry(f"{mixer}+sem", 0, backbone=backbone, error_at_half=lower, accuracy=0.52))
    ledger.append(*entry("gridmix", 0, error_at_half=0.3))
    parts, figures, _ = built(ledger)
    first, second = parts["Every mixer"]["tables"]
    assert "PreActResNet18" in first["title"] and "ViT" in second["title"]
    rows = {row[0]: row for row in first["rows"]}
    assert list(rows) == ["mixup", "fmix", "gridmix"] and "every_mixer" in figures
    assert rows["fmix"][1:3] == ["0.500", "0.400"] and rows["fmix"][7:9] == ["50.00", "52.00"]
    # The change is of the pairs' errors, whose draws scatter around what the scalars say; the interval holds it.
    low, high = map(float, rows["fmix"][3].split("[")[1].rstrip("]").split(","))
    assert low < -0.10 < high < 0
    assert rows["gridmix"][1] == "0.300" and rows["gridmix"][2:5] == ["", "", ""] and rows["gridmix"][-1] == "1, 0"
    grown = {row[0]: row for row in second["rows"]}["mixup"][3]
    assert grown.startswith("+0.0")
    assert "Every mixer" not in built_without_other_mixers(ledger)


def built_without_other_mixers(ledger):
    other = Ledger(ledger.folder.with_name("other"))
    other.append(*entry("mixup", 0))
    return built(other)[0]


def test_without_runs_of_the_sizes_own_length_the_tables_have_the_longest(ledger):
    for epochs, time in ((48, "2026-01-01"), (24, "2026-01-02")):
        ledger.append(*entry("mixup", 0, accuracy=epochs / 100, time=time, settings=(("train.epochs", epochs),)))
    table = built(ledger)[0]["Table 1: accuracy"]["tables"][0]
    assert rows_of(table)["mixup"]["ours, accuracy (%)"] == "48.00 (n=1)"


def test_lengths_stand_side_by_side_and_the_tables_have_the_sizes_own(ledger):
    own = grid.SIZES["cpu"].overrides["train.epochs"]
    for epochs, without, with_sem in ((2 * own, 0.60, 0.66), (own, 0.50, 0.51), (3, 0.40, 0.35)):
        settings = (("train.epochs", epochs),)
        time = f"2026-01-0{1 + (epochs == 3)}T00:00:00"
        ledger.append(*entry("mixup", 0, accuracy=without, settings=settings, time=time))
        ledger.append(*entry("mixup+sem", 0, accuracy=with_sem, settings=settings, time=time))
    parts, figures, _ = built(ledger)
    table = rows_of(parts["Length of training"]["tables"][0])
    assert list(table["mixup"].values()) == ["mixup", "40.00 (n=1)", "50.00 (n=1)", "60.00 (n=1)"]
    assert [cell.split(" [")[0] for cell in list(table["mixup+sem - mixup"].values())[1:]] == [
        "-5.00",
        "+1.00",
        "+6.00",
    ]
    assert "lengths" in figures
    # A control of several lengths has its line, and its difference to the method without SEM.
    for epochs, accuracy in ((own, 0.53), (3, 0.42)):
        settings = (("train.epochs", epochs),)
        ledger.append(*entry("sem-warmup", 0, accuracy=accuracy, settings=settings, time="2026-01-01"))
    table = rows_of(built(ledger)[0]["Length of training"]["tables"][0])
    assert list(table["sem-warmup"].values()) == ["sem-warmup", "42.00 (n=1)", "53.00 (n=1)", ""]
    assert table["sem-warmup - mixup"]["3 epochs"].startswith("+2.00 [")
    # So are those of a control with a recipe of its own, though they are the newest.
    own_too = Ledger(ledger.folder.with_name("own"))
    for epochs in (3, 30):
        for method in ("mixup", "mixup-own"):
            settings, time = (("train.epochs", epochs),), f"2026-01-0{1 + ('own' in method)}"
            own_too.append(*entry(method, 0, size="paper", settings=settings, time=time))
    of_own = rows_of(built(own_too, "paper")[0]["Length of training"]["tables"][0])
    assert list(of_own) == ["mixup", "mixup-own", "mixup-own - mixup"]
    # A newer run on other data is not put beside them.
    ledger.append(*entry("mixup+sem", 0, accuracy=0.9, time="2027-01-01", settings=(("data.train_size", 500),)))
    assert rows_of(built(ledger)[0]["Length of training"]["tables"][0]) == table
    line = rows_of(parts["Table 1: accuracy"]["tables"][0])["mixup"]
    assert line["ours, accuracy (%)"] == "50.00 (n=1)", "the size's own length, though another is newer"
    assert "Length of training" not in built_without_other_mixers(ledger)


def test_the_figure_and_table_of_lengths_say_how_many_images_their_runs_had(ledger):
    """Not those of the runs that the other tables have."""
    ledger.append(*entry("mixup", 0))
    for epochs in (24, 96):
        settings = (("data.train_size", 500), ("train.epochs", epochs))
        ledger.append(*entry("mixup", 0, settings=settings, time="2025-01-01"))
    parts, figures, _ = built(ledger)
    assert parts["Length of training"]["tables"][0]["title"].endswith("cifar10, 500 images")
    assert [axis.get_title(loc="left").split("\n")[1] for axis in figures["lengths"].axes] == ["500 images, one seed"]
