"""Which nets, batches and cases a suite has, and what counts as its machine's limit."""

from experiments.speed.cases import GAMMA, Case, Setting

SEM = Case(gamma=GAMMA)
METHODS = {
    "mixup": Case(),
    "mixup (again)": Case(),  # the noise floor: what differs less than these two is printed as equal
    "erm": Case(mixer="none"),
    "cutmix": Case(mixer="cutmix"),
    "sem": SEM,
    "sem, 3 passes": Case(gamma=GAMMA, three_passes=True),
    "sem, stop-gradient": Case(gamma=GAMMA, clean_features="stop_gradient"),
}
OPTIONS = {
    "sem": SEM,
    "sem, stop-gradient": METHODS["sem, stop-gradient"],
    "sem, EMA teacher": SEM._replace(clean_features="ema_teacher"),
    "sem, half of the pairs": SEM._replace(penalty_fraction=0.5),
    "sem, 2 mixes a clean pass": SEM._replace(mixes_per_clean=2),
}
EVERY = 3  # as a row of its own: the penalty in every third step
STREAMS = {"sem, streams stacked": SEM._replace(stacked=True)}
PIPELINE = {"mixup, no pipeline": Case(pipeline=False)}
LOOP = {"mixup, device loop": Case(looped=True), "sem, device loop": SEM._replace(looped=True)}

CPU = (
    Setting("preact_resnet", 18, 16, batch=64, items=1024),
    Setting("wide_resnet", 28, 1, batch=64, items=1024),
)
GPU = tuple(
    Setting(net, depth, width, batch=batch, size=size)
    for net, depth, width in (("preact_resnet", 18, 64), ("wide_resnet", 28, 10))
    for size in (32, 64)
    for batch in (128, 512)
)

# device_kind contains -> (dense bf16 FLOP/s, bytes/s). H200: measured ceilings (matmul on random data, device copy);
# the others are from the data sheets.
LIMITS = {
    "H200": (790e12, 4.3e12),
    "H100": (989e12, 3.35e12),
    "A100": (312e12, 1.555e12),
}


def limits(device_kind: str) -> tuple[float, float] | None:
    """(FLOP/s, bytes/s) of a device that is known."""
    return next((value for name, value in LIMITS.items() if name in device_kind), None)
