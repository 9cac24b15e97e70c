"""Where the runs of a sweep are computed: here, or on a Ray cluster.

    LAUNCHERS["local"](chains, jobs=0, say=print)     # {cell id: "done" | "failed" | "stopped"}

A chain is a list of jobs that go one after the other, as an ES run after the sibling whose checkpoint it starts from.
One that fails stops neither the others nor the rest of its chain. Each job is a process (`experiments.paper.cell`) that
saves and ends on SIGTERM; what a job needs to continue lies in its run folder.
"""

import os
import queue
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from experiments.paper import cell as cells
from sem_jax.errors import ConfigError, RunError

Chain = Sequence[cells.Job]
Say = Callable[[str], None]
TRIES = 3  # of a Ray task whose worker or node was lost


def gpus() -> list[str]:
    """This machine's GPUs as CUDA_VISIBLE_DEVICES names them; from nvidia-smi, since jax would reserve their memory."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None or os.environ.get("JAX_PLATFORMS") == "cpu":
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return [str(i) for i, line in enumerate(filter(None, listed.stdout.splitlines())) if line.startswith("GPU")]


def slots(jobs: int, devices: Sequence[str]) -> list[dict[str, str]]:
    """The environment of each of the processes that may run at once.

    Args:
      jobs: how many; 0 = one a GPU, or one where there is none, since a run uses all cores.
      devices: GPUs. More jobs than these share them, and their memory in equal parts.
    """
    count = jobs or len(devices) or 1
    if not devices:
        return [{} for _ in range(count)]
    share = -(-count // len(devices))
    memory = {} if share == 1 else {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / share:.2f}"}
    return [{"CUDA_VISIBLE_DEVICES": devices[i % len(devices)], **memory} for i in range(count)]


def run_chain(
    chain: Chain, environment: dict[str, str], say: Say, running: dict, stop: threading.Event
) -> dict[str, str]:
    """Runs a chain's jobs; after `stop` is set none is started any more.

    Args:
      running: id -> process, of those that run; for whoever wants to stop them.
    """
    results = {}
    for job in chain:
        name = job.cell.id
        if stop.is_set():
            results[name] = "stopped"
            continue
        say(f"start   {name}")
        process = running[name] = cells.start(job, environment)
        if stop.is_set():
            process.terminate()
        results[name] = cells.finish(job, process.wait())
        del running[name]
        say(f"{results[name]:<7} {name}")
    return results


def local(chains: Sequence[Chain], *, jobs: int = 0, address: str = "", say: Say = print) -> dict[str, str]:
    """Runs chains on this machine, as many at once as there are GPUs (or `jobs`), each on one device.

    Ctrl-C and SIGTERM are handed on: every run saves, and the same command continues.
    """
    del address
    free: queue.SimpleQueue = queue.SimpleQueue()
    places = slots(jobs, gpus())
    for place in places:
        free.put(place)
    running: dict[str, subprocess.Popen] = {}
    stop = threading.Event()

    def work(chain: Chain) -> dict[str, str]:
        environment = free.get()
        try:
            return run_chain(chain, environment, say, running, stop)
        finally:
            free.put(environment)

    def end(number, frame) -> None:
        del frame
        stop.set()
        for process in list(running.values()):
            process.send_signal(number)

    main = threading.current_thread() is threading.main_thread()
    before = {n: signal.signal(n, end) for n in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        results: dict[str, str] = {}
        with ThreadPoolExecutor(len(places)) as pool:
            for part in pool.map(work, chains):
                results |= part
        return results
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ray(
    chains: Sequence[Chain], *, jobs: int = 0, address: str = "", say: Say = print, run: Callable | None = None
) -> dict[str, str]:
    """Runs chains on a Ray cluster whose machines share the sweep's folder and the data.

    A chain whose worker or node is lost is tried again elsewhere, up to TRIES times, and continues from its last
    checkpoint; the process of a lost worker ends by itself (`cells.stop_with_parent`), and a run folder has one process
    at a time (`cells.alone`).

    Args:
      address: of a cluster that is there ("auto", "ray://HOST:10001"); "" starts one here.
      jobs: at once, 0 = as many as there are devices; on a cluster without GPUs that many share the cores.
      run: chain -> {id: what became of it}, instead of training, to try a cluster.

    Raises:
      ConfigError: Ray is not installed. RunError: it cannot be started or reached.
    """
    try:
        import ray as library
    except ImportError:
        raise ConfigError("--launcher=ray needs Ray, which is not installed", "pip install ray") from None
    if not library.is_initialized():
        try:
            options = {"address": address} if address else {"num_cpus": max(jobs, 1), "include_dashboard": False}
            library.init(log_to_driver=False, configure_logging=False, **options)
        except Exception as error:  # ray raises many types for a cluster it cannot reach
            reason = " ".join(str(error).split())[:200]
            raise RunError(f"Ray at {address or 'this machine'} cannot be used: {reason}") from error
    gpu = 1 if library.cluster_resources().get("GPU") else 0
    task = library.remote(num_cpus=1, num_gpus=gpu, max_retries=TRIES)(run or _chain_on_worker)
    waiting = {task.remote(list(chain)): chain for chain in chains}
    results: dict[str, str] = {}
    while waiting:
        (ready, *_), _ = library.wait(list(waiting), num_returns=1)
        chain = waiting.pop(ready)
        try:
            part = library.get(ready)
        except library.exceptions.RayError as error:
            part = {job.cell.id: "failed" for job in chain}
            say(f"lost: {' '.join(str(error).split())[:200]}")
        results |= part
        for name, what in part.items():
            say(f"{what:<7} {name}")
    return results


def _chain_on_worker(chain: Chain) -> dict[str, str]:
    # Ray sets CUDA_VISIBLE_DEVICES to the GPU that the task was given; the job's process inherits it.
    return run_chain(chain, {}, lambda line: None, {}, threading.Event())


LAUNCHERS = {"local": local, "ray": ray}
