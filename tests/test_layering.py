"""Who may import whom, and that importing costs nothing: no jax array, no TensorFlow, no torch."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BASE = {"sem_jax", "errors", "types", "rngs", "registry"}
ALLOWED = {
    "errors": set(),
    "types": set(),
    "rngs": {"types"},
    "registry": {"errors"},
    "data": BASE | {"data"},
    "mixers": BASE | {"mixers"},
    "models": BASE | {"models"},
    "objectives": BASE | {"objectives"},
    "optim": BASE,
    "state": BASE,
    "accumulate": BASE,
    "shortcuts": BASE,
    "step": BASE | {"state", "accumulate", "shortcuts"},
    "signals": BASE,
    "host_memory": set(),
    "records": BASE,
    "hosts": BASE,
    "manifest": BASE,
    "report": BASE | {"records"},
    "checkpoint": BASE | {"state", "hosts", "manifest"},
    "config": BASE | {"config_checks"},
    "config_checks": BASE | {"data", "mixers", "models"},  # the registries' names, imported when it validates
    "prepare": BASE | {"data"},
    "evaluation": BASE
    | {"data", "models", "state", "checkpoint", "mixers", "records", "config", "evaluation", "report", "compiled"},
    "compiled": BASE | {"data"},  # where the user's cache directory is
    "bench": BASE
    | {"bench", "data", "mixers", "models", "objectives", "optim", "state", "step", "shortcuts", "host_memory"},
    "export": BASE | {"models", "records", "evaluation"},
    "convert": BASE | {"data", "models", "state", "checkpoint", "records", "config", "evaluation", "export", "convert"},
    "main": BASE | {"config", "loop", "evaluation", "compiled", "hosts", "host_memory"},
}


def layer(path):
    parts = path.relative_to(ROOT / "sem_jax").with_suffix("").parts
    return "sem_jax" if parts == ("__init__",) else parts[0]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sem_jax":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from [a.name.split(".")[1] for a in node.names if a.name.startswith("sem_jax.")]


@pytest.mark.parametrize("path", sorted((ROOT / "sem_jax").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_data_flows_one_way(path):
    name = layer(path)
    if name in ("loop", "programs", "sem_jax"):
        return  # loop and its programs wire everything; the package's own file imports nothing
    assert name in ALLOWED, f"{name} has no place in the layers yet"
    wrong = set(imports(path)) - ALLOWED[name] - {"__version__"}
    assert not wrong, f"{path.name} may not import {', '.join(sorted(wrong))}"


def test_only_main_imports_the_loop():
    for path in (ROOT / "sem_jax").rglob("*.py"):
        assert "loop" not in set(imports(path)) or layer(path) == "main", path
        assert "programs" not in set(imports(path)) or layer(path) == "loop", path


def test_importing_makes_no_array_and_brings_no_other_framework():
    modules = [
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for p in (ROOT / "sem_jax").rglob("*.py")
        if p.stem != "__main__"
    ]
    code = (
        f"import importlib, sys, jax\nfor m in {modules!r}: importlib.import_module(m)\n"
        "assert not jax.live_arrays(), jax.live_arrays()\n"
        "assert not {'tensorflow', 'torch', 'tensorflow_datasets'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_report_needs_no_jax():
    code = "import sys, sem_jax.report; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_experiments_start_nothing_when_imported():
    modules = [f"experiments.{path.stem}" for path in (ROOT / "experiments").glob("*.py") if path.stem != "__init__"]
    if importlib.util.find_spec("torch") is None:
        modules.remove("experiments.torch_peer")
    code = (
        f"import importlib, sys\nfor m in {modules!r}: importlib.import_module(m)\n"
        "assert not {'ray', 'optuna'} & set(sys.modules)\n"
        "if 'jax' in sys.modules: assert not sys.modules['jax'].live_arrays()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
