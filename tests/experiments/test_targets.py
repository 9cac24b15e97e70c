"""The table of configurations and their hardware: its cells, that it goes on where it was stopped, how it reads."""

import json
from types import SimpleNamespace

import pytest

from experiments.speed import targets as table
from sem_jax import config
from sem_jax.config.finding import known_configs
from sem_jax.system.program_text import Collective, Step
from sem_jax.system.targets import find_target
from sem_jax.training.costs import Plan, StepPlan

GIB = 1 << 30


def made_plan(memory=GIB, collectives=(), host=()):
    text = Step(3_000_000, (), (), tuple(collectives), tuple(host))
    steps = (StepPlan("mixing", 10, 2e-3, 0.0, 0.0, memory, text),)
    return Plan("a run", (), "4 x TPU v5e", 4, 16 * GIB, 5, 5, 5, 128, 2, steps, "estimated", (32, 32, 3))


@pytest.fixture
def compiled(monkeypatch):
    """Names of the cells that were compiled, without compiling any."""
    done = []

    def measure(cell, programs):
        done.append(cell.name)
        line = {"cell": cell.name, "method": "mixup+sem", "batch": 128, "versions": {"jax": "1.2.3"}}
        if cell.config == "wrn_c10":
            return line | {
                "fits": False,
                "says": "does not fit into the memory of v5e: 17 GiB. Lower train.batch_size.",
            }
        if cell.config == "vit_c10":
            says = "the compiler for h100 failed: INTERNAL: No sizes satisfy hlo: %dot.1 = bf16[1]{0} dot(%par On the"
            return line | {"fits": False, "says": f"{says} hardware itself more is tried, so it may compile there."}
        return line | table.numbers(made_plan())

    monkeypatch.setattr(table, "measure", measure)
    monkeypatch.setattr(table.targets, "stay_off_devices", lambda: None)
    return done


def test_every_configuration_and_every_method_is_a_cell():
    cells = table.all_cells()
    assert len({cell.name for cell in cells}) == len(cells)
    for target in ("v5e", "v5e:2x2", "h100"):
        assert {it.config for it in cells if it.target == target and not it.method} == set(known_configs())
        for small in ("digits", "preact_c10"):
            of_it = (it for it in cells if it.target == target and it.config == small and it.method)
            methods = [it.method for it in of_it if "mixer.across_device" not in dict(it.settings)]
            assert sorted(methods) == sorted(config.METHODS)
    assert cells[0].name.startswith("digits") and cells[-1].config.startswith("wrn"), "the quickest first"
    many = [cell for cell in cells if cell.target == "v5e:16x16"]
    assert all(dict(it.settings)["train.batch_size"] / 256 == 128 / 4 for it in many), "as many images a chip"
    alone = [{k: v for k, v in it.settings if k != "train.batch_size"} for it in many]
    assert len(many) == 2 and all(any(dict(it.settings) == one for it in cells) for one in alone), "and four chips"


def test_the_command_goes_on_where_it_was_stopped(tmp_path, compiled):
    out, page = tmp_path / "targets.jsonl", tmp_path / "page.md"
    assert table.main([f"--out={out}", "--cells=^digits:erm@"]) == 0
    assert compiled == ["digits:erm@h100", "digits:erm@v5e", "digits:erm@v5e:2x2"]
    out.write_text(out.read_text().rstrip("\n")[:-5] + "\n")  # a kill in the middle of the last line
    assert table.main([f"--out={out}", "--cells=^(digits:erm@|wrn_c10:@v5e$|vit_c10:@h100$)"]) == 0
    assert sorted(compiled[3:]) == ["digits:erm@v5e:2x2", "vit_c10:@h100", "wrn_c10:@v5e"]
    assert table.main([f"--out={out}", "--minutes=0", f"--page={page}"]) == 0 and len(compiled) == 6
    text = page.read_text()
    assert "Of 90 cells, 3 were\ncompiled, and the compiler refused 2 (jax 1.2.3)." in text
    assert "| digits | mixup+sem | v5e | yes | 1 of 16 | 2 | 0 | 0 | no | 0 |" in text
    assert "| wrn_c10 | mixup+sem | v5e | no: 17 GiB. Lower train.batch_size. |" in text
    assert '| vit_c10 | mixup+sem | h100 | not compiled: the compiler says "No sizes satisfy hlo" |' in text
    assert "| wrn_c10 | its own | h100 | not compiled |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {11}


def test_what_chips_exchange_and_ask_of_the_host_is_counted():
    found = table.numbers(
        made_plan(
            collectives=[Collective("all-reduce", 400, ((100,),)), Collective("all-gather", 24576, ((2, 32, 32, 3),))],
            host=["a callback"],
        )
    )
    (step,) = found["steps"]
    assert (step["collectives"], step["exchanged"], step["images_exchanged"], step["host"]) == (2, 24976, 1, 1)
    json.dumps(found)


def test_a_program_is_compiled_once(tmp_path, monkeypatch):
    from sem_jax.training import plan

    asked = []

    def read_compiled(lowered, target, options, *, keep):
        asked.append((lowered.as_text(), target.text))
        keep("the text")
        return made_plan().steps[0]

    monkeypatch.setattr(plan, "read_compiled", read_compiled)
    programs, v5e, h100 = table.Programs(tmp_path / "texts"), find_target("v5e"), find_target("h100")
    one, same, other = (SimpleNamespace(as_text=lambda text=text: text) for text in ("one", "one", "other"))
    for lowered, target in ((one, v5e), (same, v5e), (other, v5e), (one, h100)):
        programs(lowered, target, {})
    assert asked == [("one", "v5e"), ("other", "v5e"), ("one", "h100")]
    assert len(programs.used) == 4 and programs.used[0] == programs.used[1]
    assert {file.name[:16] for file in (tmp_path / "texts").iterdir()} == set(programs.used)
