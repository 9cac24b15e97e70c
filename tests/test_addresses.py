"""Every option that names a place takes gs://, or refuses it in one line before a folder called `gs:` is made."""

import pytest

from experiments.paper import report
from sem_jax.config import get_default, validate
from sem_jax.convert import __main__ as convert
from sem_jax.data import __main__ as prepare
from sem_jax.data import load
from sem_jax.data.decoded_cache import cache_dir
from sem_jax.errors import ConfigError
from sem_jax.evaluation.options import Options
from sem_jax.mixers import __main__ as mixers
from sem_jax.runs import __main__ as predict
from sem_jax.runs.inputs import list_inputs

GS = "gs://my-data/folder"


def config(**fields):
    cfg = get_default()
    for name, value in fields.items():
        group, _, field = name.partition("__")
        cfg[group][field] = value
    validate(cfg)


REFUSED = {  # how the message names the place, and what gives it
    "runtime.cache_dir": lambda url: config(runtime__cache_dir=url),
    "mixer.scorer": lambda url: config(mixer__name="attentive_cutmix", mixer__scorer=f"{url}.safetensors"),
    "--ood": lambda url: Options(ood={"x": url}),
    "--shift": lambda url: Options(shift={"x": url}),
    "--corruptions-dir": lambda url: Options(corruptions_dir=url),
    "--frost-dir": lambda url: Options(frost_dir=url),
    "--out": lambda url: Options(out=url),
    "--items": lambda url: Options(items=url),
    "PATH": lambda url: list_inputs([url]),
}
COMMANDS = {
    "predict --out": lambda url: predict.main(["--workdir=.", "x.png", f"--out={url}.csv"]),
    "prepare --archive": lambda url: prepare.main(["cifar10", f"--archive={url}"]),
    "prepare --folder": lambda url: prepare.main(["cifar10", f"--folder={url}"]),
    "convert --to": lambda url: convert.main(["--workdir=.", f"--to={url}"]),
    "convert --from": lambda url: convert.main(["--workdir=.", f"--from={url}"]),
    "convert --workdir": lambda url: convert.main([f"--workdir={url}", "--from=x.pt"]),
    "mixers --out": lambda url: mixers.main([f"--out={url}"]),
    "report --out": lambda url: report.main(["--ledger=.", f"--out={url}"]),
    "report --ledger": lambda url: report.main(["--out=.", f"--ledger={url}"]),
}
RUNS = {  # these take gs://, and nothing else with "://" but hf://
    "mixer.scorer": lambda url: config(mixer__name="attentive_cutmix", mixer__scorer=url),
    "model.init_from": lambda url: config(model__init_from=url),
    "model.init_from, a file": lambda url: config(model__init_from=f"{url}/a.safetensors"),
    "--compare": lambda url: Options(compare=(url,)),
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Nothing is made in the current folder."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", [GS, "s3://bucket/folder"])
@pytest.mark.parametrize("option", REFUSED)
def test_where_a_path_is_needed_an_address_is_refused(option, url):
    message = rf"^{option.strip()}={url}\S* must be a path of this machine\n.*opy"
    with pytest.raises(ConfigError, match=message) as found:
        REFUSED[option](url)
    assert str(found.value).count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_so_do_commands(command, capsys):
    with pytest.raises(SystemExit) as ended:
        COMMANDS[command](GS)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and f"{command.split()[1]}={GS}" in said and "must be a path of this machine" in said


def test_so_does_the_cache(monkeypatch):
    monkeypatch.setenv("SEM_JAX_CACHE", GS)
    with pytest.raises(ConfigError, match=rf"^\$SEM_JAX_CACHE={GS} must be a path of this machine"):
        cache_dir()


@pytest.mark.parametrize(
    "call",
    [
        lambda url: config(data__dir=url),
        lambda url: Options(data_dir=url),
        lambda url: load("arrays", data_dir=url),
        lambda url: load("cifar10", data_dir=url),
    ],
)
def test_data_may_be_in_a_bucket_and_nowhere_else(call):
    with pytest.raises(ConfigError, match="'s3://bucket/folder' is neither a local path nor gs://BUCKET/FOLDER"):
        call("s3://bucket/folder")


def test_where_data_is_gs_is_taken():
    config(data__dir=GS)
    Options(data_dir=GS)


@pytest.mark.parametrize("option", RUNS)
def test_where_a_run_is_needed_gs_is_taken(option):
    RUNS[option](GS)
    RUNS[option]("hf://owner/name")
    with pytest.raises(ConfigError, match="is neither a local path nor gs://BUCKET/FOLDER"):
        RUNS[option]("s3://bucket/folder")
