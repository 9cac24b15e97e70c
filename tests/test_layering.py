"""Who may import whom, imports inside functions included; and that importing costs nothing: no array, no TensorFlow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BASE = {"sem_jax", "errors", "interfaces", "rngs", "registry"}
PARTS = BASE | {"data", "mixers", "models", "objectives"}
# Folder or module below sem_jax -> the folders and modules it may import; the longest name counts.
ALLOWED = {
    "sem_jax": {"registry", "api"},  # its own __init__: the face, each name imported when it is asked for
    "errors": set(),
    "registry": {"errors"},
    "interfaces": {"errors"},
    "rngs": {"interfaces"},
    "data": BASE | {"data", "system.progress", "system.urls"},
    "data.bucket_data": BASE | {"data", "system.bucket", "system.progress", "system.urls"},
    "data.hub_data": BASE | {"data", "system.hub"},
    "mixers": BASE | {"mixers", "system.urls"},
    "models": BASE | {"models"},
    "objectives": BASE | {"objectives"},
    "config": PARTS | {"config", "system.urls", "training.optim", "training.forward"},  # the words that fields may take
    "system": BASE | {"system", "data"},
    "system.progress": set(),
    "runs": PARTS | {"config", "system", "runs"},
    "training": BASE | {"runs.state", "training"},
    "training.assemble": PARTS | {"config", "runs", "training"},
    "training.monitor": BASE | {"runs.state", "runs.predict"},
    "training.ahead_of_time": PARTS | {"config", "runs", "training"},
    "training.costs": BASE | {"system.program_text", "training"},
    "training.plan": PARTS | {"config", "runs", "system", "training"},
    "training.start": PARTS | {"config", "convert.pretrained", "runs", "training"},
    "training.programs": PARTS | {"config", "runs", "system", "training"},
    "training.loop": PARTS | {"config", "runs", "system", "training"},
    "training.summary": PARTS | {"config", "runs", "training"},
    "evaluation": PARTS | {"config", "system", "runs", "evaluation"},
    "convert": PARTS | {"config", "system", "runs", "convert"},
    "api": PARTS | {"config", "system", "runs", "training", "evaluation"},
    "main": BASE | {"config", "system", "training", "evaluation", "runs"},
    "__main__": BASE | {"system.output", "system.signals", "runs.reading", "config.finding"},
}
SOURCES = sorted((ROOT / "sem_jax").rglob("*.py"))


def name_of(path: Path) -> str:
    """ "data.cifar" of sem_jax/data/cifar.py, "data" of sem_jax/data/__init__.py, "sem_jax" of the package's own."""
    parts = path.relative_to(ROOT / "sem_jax").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "sem_jax"


NAMES = {name_of(path) for path in SOURCES}


def executed(tree: ast.AST):
    """Every node but those below `if TYPE_CHECKING`, which no program runs."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from executed(node)


def imports(path: Path):
    """Names of our modules that a file imports, wherever in it."""
    for node in executed(ast.parse(path.read_text())):
        found = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sem_jax":
            module = node.module.removeprefix("sem_jax").lstrip(".")
            for alias in node.names:
                below = f"{module}.{alias.name}".lstrip(".")
                found.append(below if below in NAMES else module or "sem_jax")
        elif isinstance(node, ast.Import):
            found = [a.name.removeprefix("sem_jax.") for a in node.names if a.name.startswith("sem_jax")]
        yield from found


def covers(allowed: str, name: str) -> bool:
    return name == allowed or name.startswith(f"{allowed}.")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_data_flows_one_way(path):
    name = name_of(path)
    layers = [layer for layer in ALLOWED if covers(layer, name)]
    assert layers, f"{name} has no place in the layers yet"
    allowed = ALLOWED[max(layers, key=len)]
    wrong = {other for other in imports(path) if not any(covers(layer, other) for layer in allowed)}
    assert not wrong, f"{name} may not import {', '.join(sorted(wrong))}"


def test_no_module_imports_itself_by_way_of_others():
    graph = {name_of(path): set(imports(path)) - {name_of(path)} for path in SOURCES}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]):
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_the_root_is_small_and_only_the_doors_start_a_training():
    assert len(list((ROOT / "sem_jax").glob("*.py"))) <= 8
    for path in SOURCES:
        if "training.loop" in set(imports(path)):
            assert name_of(path) in ("main", "api"), path


def run(code: str, **options) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120, **options)


def test_importing_makes_no_array_and_brings_no_other_framework():
    modules = ["sem_jax" if name == "sem_jax" else f"sem_jax.{name}" for name in NAMES if "__main__" not in name]
    run(
        f"import importlib, sys, jax\nfor m in {sorted(modules)!r}: importlib.import_module(m)\n"
        "assert not jax.live_arrays(), jax.live_arrays()\n"
        "assert not {'tensorflow', 'torch', 'tensorflow_datasets'} & set(sys.modules)\n"
    )


def test_what_reads_files_alone_needs_no_jax():
    run("import sys, sem_jax.runs.curves, sem_jax.config, sem_jax; assert 'jax' not in sys.modules")


def test_the_loop_brings_few_modules():
    """Registries import a row when it is asked for: training one net with one mixer does not load all the others."""
    run(
        "import sys, sem_jax.training.loop\n"
        "found = [m for m in sys.modules if m.split('.')[0] == 'sem_jax']\n"
        "assert len(found) < 78, (len(found), sorted(found))\n"
    )


def test_experiments_start_nothing_when_imported():
    paths = [p for p in (ROOT / "experiments").rglob("*.py") if p.stem not in ("__init__", "__main__")]
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in paths]
    modules.remove("experiments.speed.torch_peer")  # its first line needs torch, which takes seconds
    run(
        f"import importlib, sys\nfor m in {sorted(modules)!r}: importlib.import_module(m)\n"
        "assert not {'ray', 'optuna'} & set(sys.modules)\n"
        "if 'jax' in sys.modules: assert not sys.modules['jax'].live_arrays()\n"
    )
