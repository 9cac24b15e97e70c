"""Every line of slow.txt names a test: where one is renamed, its line must not be left behind."""

from pathlib import Path

from tests.conftest import COLLECTED, SLOW

ROOT = Path(__file__).parent.parent


def without_test(lines, collected, root=ROOT):
    """The lines that no test's name begins with.

    Of a file that was not collected, because of another command line or of a missing package, only the function is
    looked for: the names of its parameters are not known.
    """
    files = {name.split("::")[0] for name in collected}
    missing = []
    for line in lines:
        file, _, test = line.partition("::")
        if file in files:
            found = any(name.startswith(line) for name in collected)
        else:
            found = (root / file).is_file() and (not test or f"def {test.split('[')[0]}" in (root / file).read_text())
        if not found:
            missing.append(line)
    return missing


def test_every_line_of_the_slow_list_names_a_test(request):
    single = any("::" in argument for argument in request.config.args)  # then the files are not collected as a whole
    missing = without_test(SLOW, () if single else request.config.stash[COLLECTED])
    assert not missing, "No test begins with these lines of tests/slow.txt:\n" + "\n".join(missing)
    assert len(set(SLOW)) == len(SLOW), "tests/slow.txt has a line twice"


def test_a_line_without_a_test_is_found(tmp_path):
    (tmp_path / "test_a.py").write_text("def test_one(): ...\n")
    lines = (
        "test_a.py::test_one[x",
        "test_a.py::test_two",
        "test_b.py",
        "test_c.py::test_it[a]",
        "test_c.py::test_it[b]",
    )
    assert without_test(lines, ["test_c.py::test_it[a-1]", "test_c.py::test_it[a]"], tmp_path) == [
        *lines[1:3],
        lines[4],
    ]
