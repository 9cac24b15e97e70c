"""What the documentation says can be done: its Python runs, and its commands, settings, files and links are there."""

import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import sem_jax
from sem_jax.__main__ import COMMANDS
from sem_jax.config.fields import FIELDS
from sem_jax.data import DATASETS
from sem_jax.evaluation.suites import SUITES
from sem_jax.interfaces import Batch, Mix, Outputs
from sem_jax.mixers import MIXERS
from sem_jax.models import MODELS
from sem_jax.objectives.build import make_objective

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL = [*PAGES, ROOT / "CHANGELOG.md", *sorted((ROOT / "experiments").rglob("*.md"))]
FOLDERS = "configs|docs|experiments|notebooks|sem_jax|tests"


def blocks(path):
    """The blocks marked as Python. Those marked as text are not meant to run."""
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def named(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [path for path in PAGES if blocks(path)], ids=named)
def test_the_python_of_a_page_runs(path, tmp_path, monkeypatch):
    """Block after block in one namespace. One whose first line names a file is written there."""
    monkeypatch.chdir(tmp_path)
    for table in (MIXERS, MODELS, DATASETS, SUITES):
        monkeypatch.setattr(table, "data", dict(table.data))  # a page may add rows
    namespace = {"__name__": path.stem}
    for number, code in enumerate(blocks(path), 1):
        if file := re.match(r"# (\w+\.py)\b", code):
            (tmp_path / file[1]).write_text(code)
        exec(compile(code, f"{named(path)}, block {number}", "exec"), namespace)
    check = {"README.md": the_loss_is_eq_9, "docs/extending.md": the_new_rows_learn}.get(named(path))
    if check:
        check(namespace)


def the_loss_is_eq_9(page):
    """The README's own loop against the objective that the trainer has."""
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(8, 6, 6, 3)).astype(np.float32), np.arange(8) % 4
    params = [rng.normal(size=shape).astype(np.float32) for shape in ((108, 5), (5, 4))]

    def model(params, images):
        features = images.reshape(len(images), -1) @ params[0]
        return Outputs(features, features @ params[1])

    page["model"] = model
    key = jax.random.key(0)
    mixed, mix = page["mix"](key, images)
    outputs = {"mixed": model(params, mixed), "clean": model(params, images)}
    expected, _ = make_objective(gamma=0.3)(outputs, Batch(images, labels, np.ones(8, np.float32)), Mix(*mix))
    np.testing.assert_allclose(page["loss"](params, key, images, labels), expected, rtol=1e-5)


def the_new_rows_learn(page):
    """The mixer's lam is the share of the anchor's columns, and the data set can be told apart."""
    anchor, partner = np.ones((4, 8, 1), np.float32), np.zeros((4, 8, 1), np.float32)
    mixed, lam = page["apply_split"](page["sample_split"](jax.random.key(1), (4, 8, 1), alpha=1.0), anchor, partner)
    assert float(lam) == pytest.approx(float(mixed.mean()), abs=1e-6)
    suites = page["record"]["suites"]
    assert suites["clean"]["scalars"]["top1"] > 0.9 and suites["inverted"]["status"] == "done"


def modules(text):
    """The (module, first argument) of every `python -m ...` that is written in full."""
    return set(re.findall(r"python -m ([\w.]*\w)(?: +(\w+)\b(?![./=]))?", text))


@pytest.mark.parametrize("path", [path for path in ALL if path.name != "CHANGELOG.md"], ids=named)
def test_commands_settings_and_files_are_there(path):
    text = path.read_text()
    for module, argument in modules(text):
        if module == "sphinx":  # of the extra `docs`, which tests do without
            continue
        spec = importlib.util.find_spec(module)
        assert spec is not None, f"python -m {module}"
        if spec.submodule_search_locations is not None and module != "pytest":
            assert importlib.util.find_spec(f"{module}.__main__"), f"python -m {module} cannot be run"
        if module == "sem_jax" and argument:
            assert argument in COMMANDS, f"python -m sem_jax {argument}"
    for field in re.findall(r"--config\.([\w.]*\w)=", text):
        assert field in FIELDS or field == "group.field", f"--config.{field}"
    files = re.findall(rf"(?<![\w/.-])((?:{FOLDERS})/[\w./-]*\.(?:py|md|png|txt|json))\b", text)
    for file in files:
        assert (ROOT / file).exists() or "NAME" in file, file


def anchors(path):
    """The ids that headings get where Markdown is shown."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", ALL, ids=named)
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_reference_has_every_name_of_the_face_and_no_other():
    text = (ROOT / "docs/api.md").read_text()
    assert set(re.findall(r"^ +~sem_jax\.(\w+)$|^\| `sj\.(\w+)` ", text, re.MULTILINE)) == {
        ("", name) if name.isupper() else (name, "") for name in sem_jax.__all__
    }
    for module in re.findall(r"^ +(sem_jax\.[\w.]+)$", text, re.MULTILINE):
        assert importlib.util.find_spec(module), module
