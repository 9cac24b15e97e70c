"""The table of fields: rows are complete and refuse what they should by name; the page made of it is current."""

import math
from pathlib import Path

import pytest

from sem_jax.config import flatten, from_dict, get_default, override, to_dict
from sem_jax.config.fields import FIELDS, GROUPS, RENAMED, TABLE, Range, Words, describe, did_you_mean
from sem_jax.errors import ConfigError
from sem_jax.registry import resolve
from sem_jax.runs.records import RunFolder
from tests.helpers.wrong_configs import set_field

ROOT = Path(__file__).parents[2]


def saved_with(name, value):
    """What a config.json says in which a field has this value."""
    saved = to_dict(get_default())
    set_field(saved, name, value)
    return saved


def out_of_range(field):
    """Values of the field's type that it does not take."""
    if isinstance(field.default, float):
        yield from (math.nan, math.inf, -math.inf, 10**400)
    if isinstance(field.allowed, Words):
        yield from ("no such word", "")
    if isinstance(field.allowed, Range):
        step, low, high = (0.5 if isinstance(field.default, float) else 1), field.allowed.low, field.allowed.high
        yield from (low - step, *([] if high == math.inf else [high + step]))
        yield from [low] if field.allowed.ends[0] == "(" else []
        yield from [high] if field.allowed.ends[1] == ")" and high != math.inf else []
    if isinstance(field.default, tuple):
        yield from ((0,), (0.5, 0.5), (math.nan,), (math.inf,), (10**400,))
    if field.name == "mixer.stop_epoch":
        yield from (-1, 201)


def test_the_table_is_the_configuration():
    assert sorted(FIELDS) == sorted(name for name, _ in flatten(get_default())) and len(FIELDS) == len(TABLE)
    assert {name.rpartition(".")[0] for name in FIELDS} == {"", *GROUPS}
    for old, new in RENAMED.items():
        field, _, word = old.partition("=")
        assert (field in FIELDS and new in resolve(FIELDS[field].allowed.place)) if word else new in FIELDS


@pytest.mark.parametrize("field", TABLE, ids=lambda field: field.name)
def test_every_field_has_a_doc_and_takes_its_default(field):
    assert field.doc.endswith(".") and "|" not in field.doc
    field.check(field.default)
    if isinstance(field.allowed, Words):
        known = list(resolve(field.allowed.place))
        assert field.default in known and len(known) > 1
        for word in known:
            field.check(word)


@pytest.mark.parametrize("field", TABLE, ids=lambda field: field.name)
def test_every_field_refuses_another_type_by_name(field):
    others = [None, {"a": 1}.keys(), b"1", (1,), "1", 1.5, 1, True]
    for other in others:
        if type(other) is type(field.default) or (type(other) is int and isinstance(field.default, float)):
            continue
        with pytest.raises(ConfigError, match=f"^{field.name} must be {field.kind}, got "):
            field.check(other)
        if other is None or isinstance(other, (str, int, float)):  # what JSON can hold
            with pytest.raises(ConfigError, match=f"^{field.name} must be {field.kind}, got "):
                from_dict(saved_with(field.name, other))


REFUSED = [(field, value) for field in TABLE for value in out_of_range(field)]


@pytest.mark.parametrize(("field", "value"), REFUSED, ids=[f"{f.name}={v!r:.20}" for f, v in REFUSED])
def test_every_field_refuses_a_value_out_of_its_range_by_name(field, value):
    with pytest.raises(ConfigError) as caught:
        from_dict(saved_with(field.name, value))
    named = [field.name, f"Unknown {getattr(field.allowed, 'kind', '') or field.name} {value!r}"]
    assert any(name in str(caught.value).splitlines()[0] for name in named)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_number_that_python_cannot_spell_is_refused():
    for value in (10**5000, (10**5000,)):
        with pytest.raises(ConfigError, match="must be .*, got a number of too many digits"):
            FIELDS["train.keep_epochs" if isinstance(value, tuple) else "train.keep"].check(value)


@pytest.mark.parametrize("allowed", [Range(0), Range(0, 1, "[)"), Range(0, 1, "(]"), Range(0, ends="()"), Range(-1)])
def test_a_range_says_what_it_holds(allowed):
    """Its text, read as Python: "in [0, 1)" holds 0 and not 1."""
    for value in (-1, -0.5, 0, 0.5, 1, 1.5):
        text = str(allowed)
        if text.startswith("in "):
            low, high = text[4:-1].split(", ")
            said = eval(f"{low} {'<=' if text[3] == '[' else '<'} {value} {'<=' if text[-1] == ']' else '<'} {high}")
        else:
            said = eval(f"{value} {text}")
        assert allowed.holds(value) is said
    assert str(Range(8, beside=0)) == "0 or >= 8" and Range(8, beside=0).holds(0) and not Range(8, beside=0).holds(7)


def test_the_settings_page_is_current():
    assert (ROOT / "docs/settings.md").read_text() == describe(), "python -m sem_jax.config > docs/settings.md"


def test_a_configuration_of_an_older_version_is_loaded():
    old = to_dict(get_default())
    del old["runtime"]["passes"]
    old["runtime"] |= {"streams": "stacked", "residency": "stream"}
    old["objective"]["clean_features"] = "auto"
    new = from_dict(old)
    assert (new.runtime.passes, new.runtime.residency, new.objective.clean_features) == ("stacked", "disk", "exact")
    assert to_dict(from_dict(to_dict(new))) == to_dict(new)


def test_a_run_of_an_older_version_is_continued(tmp_path):
    old = to_dict(get_default())
    old["runtime"] = {"streams": "stacked", "residency": "stream"}
    RunFolder(tmp_path).claim(old, {"fingerprint": "f", "name": "cifar10"}, ignore=("runtime",))
    RunFolder(tmp_path).claim(to_dict(from_dict(old)), {"fingerprint": "f", "name": "cifar10"}, ignore=("runtime",))


def test_fields_are_set_by_their_dotted_names():
    cfg = override(get_default(), {"train.epochs": 2, "optim.boundaries": [0.25, 0.5], "objective.gamma": 1, "seed": 3})
    assert (cfg.seed, cfg.mixer.stop_epoch, cfg.optim.boundaries) == (3, 2, (0.25, 0.5))
    assert type(cfg.objective.gamma) is float
    with pytest.raises(ConfigError, match="Unknown field 'mixr.alpha' in here. Did you mean 'mixer.alpha'"):
        override(cfg, {"mixr.alpha": 1.0}, where=" in here")
    with pytest.raises(ConfigError, match="train.epochs must be a whole number, got '2'"):
        override(cfg, {"train.epochs": "2"})


def test_a_former_name_is_answered_with_the_new_one():
    assert did_you_mean("runtime.streams") == " It is called 'runtime.passes' now."
    assert did_you_mean("config.runtime.streams", "config.") == " It is called 'config.runtime.passes' now."
    assert did_you_mean("config.mixr.alpha", "config.") == " Did you mean 'config.mixer.alpha'?"
    with pytest.raises(ConfigError, match="Unknown runtime.residency 'stream'. It is called 'disk' now."):
        FIELDS["runtime.residency"].check("stream")
