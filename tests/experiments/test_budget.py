"""A sweep within minutes: what fits is started, what does not is left out or begun; clock and runs are the test's."""

import pytest

from experiments.paper import budget, grid, rows
from experiments.paper import cell as cells
from experiments.paper.cell import Job
from experiments.paper.ledger import Ledger
from tests.helpers.ledgers import entry


class Clock:
    """Seconds that runs let pass."""

    now = 0.0

    def __call__(self):
        return self.now


def job(method, out, seed=0):
    return Job(grid.Cell("cpu", "preact", "cifar10", method, seed), str(out), ("clean",))


def done(book_of, method, *, train, wall, seed=0, **more):
    made, _ = entry(method, seed, train_time_s=train, wall_time_s=wall, **more)
    Ledger(book_of / "ledger").append(made)


def runner(out, clock, seconds, *, fails=()):
    """In a run's place: lets the seconds of its method pass, within its limit."""
    started = []

    def run(it, limit):
        takes = seconds[it.cell.method]
        started.append((it.cell.method, round(it.max_minutes * 60), round(limit)))
        clock.now += min(takes, limit)
        if it.cell.method in fails:
            return "failed"
        if takes > limit:
            return "stopped"
        done(out, it.cell.method, train=takes - 20, wall=takes)
        return "done"

    return run, started


def test_only_what_fits_is_started_and_the_rest_of_the_time_begins_one_more(tmp_path):
    """SEM passes twice: once mixup has told what a pass costs, SEM does not fit into what is left, and ERM does."""
    clock, seconds = Clock(), {"mixup": 120.0, "mixup+sem": 220.0, "erm": 120.0}
    jobs = [job(method, tmp_path) for method in ("mixup", "mixup+sem", "erm")]
    run, started = runner(tmp_path, clock, seconds)
    results = budget.run_within(jobs, minutes=5, say=lambda _: None, clock=clock, run=run)
    assert results == {jobs[0].cell.id: "done", jobs[1].cell.id: "left out", jobs[2].cell.id: "done"}
    assert [name for name, *_ in started] == ["mixup", "erm"]
    assert started[0][1:] == (285, 300), "told to save in time, and ended only when that is over"
    assert started[1][2] == min(165 + 15, 60 + 2 * 120 + 15)

    clock.now = 0.0
    run, started = runner(tmp_path, clock, seconds)
    results = budget.run_within(jobs[1:2], minutes=2, begin=True, say=lambda _: None, clock=clock, run=run)
    assert results == {jobs[1].cell.id: "stopped"} and started == [("mixup+sem", 105, 120)]
    assert budget.run_within(jobs[1:2], minutes=1, begin=True, clock=clock, run=run, say=lambda _: None) == {
        jobs[1].cell.id: "left out"
    }


def test_a_run_that_fails_or_hangs_stops_no_other(tmp_path):
    done(tmp_path, "mixup", train=30.0, wall=50.0)
    clock, seconds = Clock(), {"cutmix": 10.0, "cutmix+sem": 9999.0, "erm": 50.0}
    jobs = [job(method, tmp_path) for method in seconds]
    run, started = runner(tmp_path, clock, seconds, fails=("cutmix",))
    results = budget.run_within(jobs, minutes=10, say=lambda _: None, clock=clock, run=run)
    assert list(results.values()) == ["failed", "stopped", "done"]
    assert started[1][2] == 60 + 2 * (20 + 60) + 15, "one that takes twice its estimate and a minute is ended"


@pytest.mark.parametrize(("method", "passes"), [("erm", 12), ("mixup", 12), ("mixup+sem", 24), ("mixup+es+sem", 21)])
def test_work_is_counted_in_passes_of_the_net(method, passes):
    cfg = grid.make_config(grid.Cell("cpu", "preact", "cifar10", method, 0))
    assert budget.passes(cfg) == passes and budget.work(cfg) == passes * 78 * 128


def test_estimates(tmp_path):
    sem, es = job("mixup+sem", tmp_path), job("mixup+es+sem", tmp_path)
    book = Ledger(tmp_path / "ledger").read_or_empty()
    assert budget.estimate(sem, book) is None
    steps = 10_000 // 128
    assert budget.estimate(sem, book, step_ms=10.0) == pytest.approx(60 + 24 * steps * 0.010)
    done(tmp_path, "mixup+sem", train=240.0, wall=260.0)
    book = Ledger(tmp_path / "ledger").read()
    assert budget.estimate(job("mixup", tmp_path), book, step_ms=10.0) == pytest.approx(20 + 12 * 10), "runs tell more"
    assert budget.estimate(es, book) == pytest.approx(20 + 3 * 10), "from the switch on, where its sibling is there"


def test_runs_on_fewer_images_tell_what_an_image_costs(tmp_path):
    """And those on as many images, where there are some, tell more: the small ones' epochs cost more than images."""
    small = (("data.train_size", 500), ("train.epochs", 96))
    done(tmp_path, "mixup", train=96 * 384 * 1e-3, wall=96 * 384 * 1e-3 + 20, settings=small)
    wanted = job("mixup", tmp_path, seed=1)
    book = Ledger(tmp_path / "ledger").read()
    assert budget.estimate(wanted, book) == pytest.approx(20 + 12 * 78 * 128 * 1e-3), "not of epochs of three steps"
    done(tmp_path, "mixup", train=12 * 78 * 128 * 1e-4, wall=12 * 78 * 128 * 1e-4 + 30)
    assert budget.estimate(wanted, Ledger(tmp_path / "ledger").read()) == pytest.approx(30 + 12 * 78 * 128 * 1e-4)


def test_a_run_that_was_continued_does_not_tell_that_there_is_nothing_beside_training(tmp_path):
    """In old entries the wall time is that of the last process, less than the training in all of them."""
    done(tmp_path, "mixup", train=120.0, wall=30.0)
    assert budget.estimate(job("mixup", tmp_path, 1), Ledger(tmp_path / "ledger").read()) == pytest.approx(120 + 60)
    done(tmp_path, "mixup", train=120.0, wall=30.0, beside_time_s=25.0)
    assert budget.estimate(job("mixup", tmp_path, 1), Ledger(tmp_path / "ledger").read()) == pytest.approx(120 + 25)


def test_the_time_of_a_run_is_that_of_all_its_processes():
    """70 of 100 s of training were there when the last process began, which took 50 s in all."""
    told = cells.cost(50.0, 100.0, 70.0, 0.0)
    assert (told["wall_time_s"], told["beside_time_s"], told["shared_time_s"]) == (50.0, 20.0, 0.0)
    assert rows.spent({"train_time_s": 100.0, **told}) == 120.0
    of_branch = cells.cost(50.0, 100.0, 75.0, 75.0)
    assert rows.spent({"train_time_s": 100.0, "branched_from": "x", **of_branch}) == 50.0
    assert cells.cost(30.0, 100.0, 100.0, 0.0)["beside_time_s"] == 30.0, "scored once more"
    old = {"wall_time_s": 30.0, "train_time_s": 100.0}
    assert rows.spent(old) == 100.0 and rows.spent(old | {"branched_from": "x"}) == 30.0
    assert rows.spent({"wall_time_s": 130.0, "train_time_s": 100.0}) == 130.0


def test_what_remains_of_a_run_is_told_by_its_log_where_its_checkpoint_is_there(tmp_path):
    done(tmp_path, "mixup", train=120.0, wall=140.0)
    begun, book = job("mixup", tmp_path, 1), Ledger(tmp_path / "ledger").read()
    begun.folder.mkdir(parents=True)
    (begun.folder / "metrics.jsonl").write_text('{"step": 702, "epoch": 9, "seconds": 90.0}\n')
    assert budget.estimate(begun, book) == pytest.approx(20 + 120), "the log alone came home"
    (begun.folder / "checkpoints").mkdir()
    assert budget.estimate(begun, book) == pytest.approx(20 + 30)
