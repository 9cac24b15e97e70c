"""The same training steps here and in PyTorch, interleaved in one process: ours / PyTorch.

    python -m experiments.speed.peers                                 # CPU: narrow PreActResNet18, batch 64, float32
    python -m experiments.speed.peers --suite=gpu --out=peers.json    # bfloat16, eager, torch.compile twice
    python -m experiments.speed.peers --threads=1                     # with `taskset -c 0`: a machine that is busy

Both have the same weights (copied), the same images lying ready on the device, channels last, SGD with momentum and
weight decay; before anything is timed their losses on one mixed batch must agree, to 1e-5 in float32 and 1e-2 in
bfloat16; a setting where they do not is left out, and the exit status is 1. PyTorch has SEM in two passes, as ours, and
in three, as Algorithm 1 is written; timm's Mixup if it is installed. Needs PyTorch. A ratio above 1 says that ours is
faster.
"""

import json
import os
import sys
from pathlib import Path

from experiments.commands import markdown, names, parser
from experiments.speed import settings
from experiments.speed.cases import GAMMA, Bench, Case, Setting
from experiments.speed.environment import environment, no_gpu
from experiments.speed.timing import measure, ratio
from sem_jax.system.host_memory import keep_freed_memory

OURS = {"mixup": Case(pipeline=False), "sem": settings.SEM._replace(pipeline=False)}


class Peer:
    """One net in PyTorch with its optimizer.

    Args:
      setting: net and batch.
      variables: of the Flax net, whose weights it gets.
      images: f32[n h w c], normalised.
      labels: i32[n].
      gpu: on CUDA, in bfloat16 autocast.
      compiled: "" (eager), "default" or "max-autotune".
    """

    def __init__(self, setting: Setting, variables, images, labels, *, gpu: bool, compiled: str = ""):
        import torch
        from torch.nn import functional

        from experiments.speed import torch_peer

        self._torch, self._functional, self._setting, self._gpu = torch, functional, setting, gpu
        if setting.net == "preact_resnet":
            net = torch_peer.preact_resnet18(setting.width, "v1", setting.classes)
        else:
            net = torch_peer.wide_resnet(setting.depth, setting.width, setting.classes)
        self._device = "cuda" if gpu else "cpu"
        net = torch_peer.copy_weights(net, variables).to(self._device).to(memory_format=torch.channels_last).train()
        self._parameters = list(net.parameters())
        self._net = torch.compile(net, mode=compiled) if compiled else net
        self._optimizer = torch.optim.SGD(self._parameters, lr=0.01, momentum=0.9, weight_decay=1e-4)
        nchw = torch.tensor(images).permute(0, 3, 1, 2)
        self._images = nchw.contiguous(memory_format=torch.channels_last).to(self._device)
        self._targets = functional.one_hot(torch.tensor(labels).long(), setting.classes).float().to(self._device)

    def loss(self, x, y, lam, pairing, *, gamma: float, passes: int):
        """Eq. 9 of one batch with the draw given."""
        torch = self._torch
        with torch.autocast(self._device, torch.bfloat16, enabled=self._gpu):
            weight = lam[:, None, None, None]
            features, logits = self._net(weight * x + (1 - weight) * x[pairing])
            clean = self._net(x)[0] if gamma else None
            partner = self._net(x[pairing])[0] if gamma and passes == 3 else None
        target = lam[:, None] * y + (1 - lam[:, None]) * y[pairing]
        loss = self._functional.cross_entropy(logits.float(), target)
        if clean is not None:
            clean = clean.float()
            partner = clean[pairing] if partner is None else partner.float()
            mixture = lam[:, None] * clean + (1 - lam[:, None]) * partner
            loss = loss + gamma * (features.float() - mixture).norm(dim=1).mean()
        return loss

    def update(self, loss) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()

    def check(self, rows, lam, pairing, expected: float, *, gamma: float) -> float:
        """Relative difference of the loss from ours."""
        torch = self._torch
        rows, pairing = (torch.tensor(v, device=self._device).long() for v in (rows, pairing))
        lam = torch.tensor(lam, device=self._device)
        loss = self.loss(self._images[rows], self._targets[rows], lam, pairing, gamma=gamma, passes=2)
        return abs(float(loss.detach()) - expected) / abs(expected)

    def runner(self, *, gamma: float, passes: int = 2, mixup=None):
        """A function of a number of steps, for `measure`."""
        torch, batch, count = self._torch, self._setting.batch, len(self._images)

        def run(steps: int) -> None:
            for _ in range(steps):
                rows = torch.randint(count, (batch,), device=self._device)
                x, y = self._images[rows], self._targets[rows]
                if mixup is not None:
                    mixed, target = mixup(x, y.argmax(1))
                    with torch.autocast(self._device, torch.bfloat16, enabled=self._gpu):
                        logits = self._net(mixed)[1]
                    self.update(self._functional.cross_entropy(logits.float(), target))
                    continue
                pairing, lam = torch.randperm(batch, device=self._device), torch.rand(batch, device=self._device)
                self.update(self.loss(x, y, lam, pairing, gamma=gamma, passes=passes))
            if self._gpu:
                torch.cuda.synchronize()

        return run


def our_loss(bench: Bench, variables, x, y, lam, pairing, *, gamma: float) -> float:
    """The loss of our step for the same draw."""
    import jax
    import jax.numpy as jnp

    from sem_jax.interfaces import Batch, Mix
    from sem_jax.objectives.build import make_objective
    from sem_jax.training.forward import make_forward

    def loss(params, stats, x, y, lam, pairing):
        weight = lam[:, None, None, None]
        passes = {"mixed": weight * x + (1 - weight) * x[pairing], "clean": x}
        outputs, _ = make_forward(bench.model, stacked=False)(params, stats, passes, jax.random.key(0))
        return make_objective(gamma=gamma)(outputs, Batch(x, y, jnp.ones(len(y))), Mix(lam, pairing))[0]

    return float(jax.jit(loss)(variables["params"], variables["batch_stats"], x, y, lam, pairing))


def compare(setting: Setting, *, gpu: bool, steps: int, blocks: int, compiled: list[str]) -> dict:
    """All rows of one setting; nothing is timed, and there is no row, unless the losses agree."""
    import jax
    import numpy as np

    bench = Bench(setting)
    rng = np.random.default_rng(0)
    shape = (setting.items, setting.size, setting.size, 3)
    images = (rng.integers(0, 256, shape).astype(np.float32) / 255 - 0.5) / 0.25
    labels = rng.integers(0, setting.classes, setting.items).astype(np.int32)
    variables = jax.jit(lambda k, x: bench.model.init(k, x, train=False))(jax.random.key(1), images[:1])
    rows, pairing = np.arange(setting.batch), rng.permutation(setting.batch)
    lam = rng.uniform(size=setting.batch).astype(np.float32)
    expected = our_loss(bench, variables, images[rows], labels[rows], lam, pairing, gamma=GAMMA)
    peers = {mode: Peer(setting, variables, images, labels, gpu=gpu, compiled=mode) for mode in ("", *compiled)}
    limit = 1e-2 if gpu else 1e-5
    differences = {mode or "eager": p.check(rows, lam, pairing, expected, gamma=GAMMA) for mode, p in peers.items()}
    if not all(difference <= limit for difference in differences.values()):
        print(f"{setting.name}: losses differ by {differences} (relative), at most {limit}: not timed")
        return {"setting": setting.name, "loss_difference": differences, "rows": []}
    for name, case in OURS.items():
        bench.add(name, case)
    runs = {f"ours {name}": run for name, run in bench.runs.items()}
    for mode, peer in peers.items():
        mode = mode or "eager"
        runs[f"{mode} mixup"] = peer.runner(gamma=0.0)
        runs[f"{mode} sem"] = peer.runner(gamma=GAMMA)
        runs[f"{mode} sem, 3 passes"] = peer.runner(gamma=GAMMA, passes=3)
    try:
        from timm.data.mixup import Mixup
    except (ImportError, RuntimeError):  # RuntimeError: a torchvision that does not fit PyTorch
        print("timm is not there or cannot be imported: its row is left out")
    else:
        mixup = Mixup(mixup_alpha=1.0, mode="batch", label_smoothing=0.0, num_classes=setting.classes)
        runs["eager mixup by timm"] = peers[""].runner(gamma=0.0, mixup=mixup)
    timings = measure(runs, steps=steps, blocks=blocks, warmup=20 if gpu else 2)
    made = []
    for name, timing in timings.items():
        ours = timings["ours sem" if "sem" in name else "ours mixup"]
        wall, cpu = ratio(timing, ours, cpu=False), ratio(timing, ours, cpu=True)
        made.append(
            {
                "setting": setting.name,
                "case": name,
                "step_ms": timing.wall_ms.median,
                "step_iqr": timing.wall_ms.iqr,
                "cpu_ms": timing.cpu_ms.median,
                "ours_faster_wall": wall.median,
                "ours_faster_wall_iqr": wall.iqr,
                "ours_faster_cpu": cpu.median,
                "ours_faster_cpu_iqr": cpu.iqr,
            }
        )
    return {"setting": setting.name, "loss_difference": differences, "rows": made}


def table(found: list[dict]) -> str:
    """Markdown."""
    lines = []
    for r in (row for part in found for row in part["rows"]):
        wall = f"{r['ours_faster_wall']:.2f} ({r['ours_faster_wall_iqr']:.0%})"
        cpu = f"{r['ours_faster_cpu']:.2f} ({r['ours_faster_cpu_iqr']:.0%})"
        lines.append([r["setting"], r["case"], f"{r['step_ms']:.1f}", f"{r['cpu_ms']:.0f}", wall, cpu])
    return markdown(["net", "case", "step ms", "CPU ms", "ours faster, wall", "ours faster, CPU s"], lines)


def main(argv: list[str] | None = None) -> int:
    options = parser("experiments.speed.peers", __doc__)
    options.add_argument("--suite", choices=("cpu", "gpu"), default="cpu")
    options.add_argument("--out", type=Path, help="JSON file")
    options.add_argument("--nets", default="preact", help='settings whose name contains this; "" = all')
    options.add_argument("--compile", default="", help="torch.compile modes, or none; GPU: default,max-autotune")
    options.add_argument("--steps", type=int, default=0)
    options.add_argument("--blocks", type=int, default=7)
    options.add_argument("--threads", type=int, default=0, help="of PyTorch on CPU; 0 = all cores")
    args = options.parse_args(argv)
    gpu = args.suite == "gpu"
    if gpu:  # PyTorch needs some of it; read when jax starts
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    else:
        keep_freed_memory()
    import torch

    if gpu and (no_gpu() or not torch.cuda.is_available()):
        raise SystemExit("--suite=gpu: jax or PyTorch finds no GPU here (not measured).")
    if gpu:
        torch.backends.cudnn.benchmark = True
    torch.set_num_threads(args.threads or os.cpu_count() or 1)
    modes = [m for m in names(args.compile or ("default,max-autotune" if gpu else "")) if m != "none"]
    chosen = [s for s in (settings.GPU if gpu else settings.CPU) if args.nets in s.name]
    steps = args.steps or (50 if gpu else 2)
    if not chosen:
        options.error(f"no setting of the suite has {args.nets!r} in its name")
    versions = environment() | {
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version() if gpu else None,
        "threads": torch.get_num_threads(),
    }
    found = []
    for setting in chosen:  # kept after each: a later one may not fit the memory
        found.append(compare(setting, gpu=gpu, steps=steps, blocks=args.blocks, compiled=modes))
        if args.out:
            kept = {"environment": versions, "settings": found}
            args.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(versions))
    for part in found:
        print(part["setting"], "loss differences:", part["loss_difference"])
    print(table(found))
    return 0 if all(part["rows"] for part in found) else 1


if __name__ == "__main__":
    sys.exit(main())
