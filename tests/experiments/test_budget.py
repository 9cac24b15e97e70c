"""A sweep within minutes: what fits is started, what does not is left out or begun; clock and runs are the test's."""

import pytest

from experiments.paper import budget, grid
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


def done(book_of, method, *, train, wall, seed=0):
    made, _ = entry(method, seed, train_time_s=train, wall_time_s=wall)
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
    assert budget.work(grid.make_config(grid.Cell("cpu", "preact", "cifar10", method, 0))) == passes


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
