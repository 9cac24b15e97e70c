"""Which nets, batches and cases are measured, and what counts as a machine's limit."""

from experiments.speed.cases import GAMMA, Case, Setting


def sem(**fields) -> Case:
    """mixup + SEM with fields of the configuration, as in objective__distance="normalised"."""
    return Case({"objective.gamma": GAMMA} | {name.replace("__", "."): value for name, value in fields.items()})


SEM = sem()
METHODS = {
    "mixup": Case(),
    "mixup (again)": Case(),  # the noise floor: what differs less than these two is printed as equal
    "erm": Case({"mixer.name": "none"}),
    "cutmix": Case({"mixer.name": "cutmix"}),
    "sem": SEM,
    "sem, 3 passes": SEM._replace(three_passes=True),
    "sem, stop-gradient": sem(objective__clean_features="stop_gradient"),
}
EVERY = 3  # of the penalty in every third step; the steps of a block should be a multiple of it
OPTIONS = {
    "sem": SEM,
    "sem, stop-gradient": METHODS["sem, stop-gradient"],
    "sem, EMA teacher": sem(objective__clean_features="ema_teacher"),
    "sem, half of the pairs": sem(objective__penalty_fraction=0.5),
    "sem, 2 mixes a clean pass": sem(objective__mixes_per_clean=2),
    f"sem, every {EVERY} steps": sem(objective__penalty_every=EVERY),
}
PASSES = {"sem": SEM, "sem, passes stacked": sem(runtime__passes="stacked")}
PIPELINE = {"mixup, no pipeline": Case(pipeline=False)}
LOOP = {"mixup, device loop": Case({"runtime.loop": "device"}), "sem, device loop": sem(runtime__loop="device")}

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

# device_kind contains -> (dense bf16 FLOP/s, bytes/s). H200: rates of a matrix product and of a copy on the device, as
# measured by others, not by this project; the data sheet says 989e12 and 4.8e12. The others are from the data sheets.
LIMITS = {
    "H200": (790e12, 4.3e12),
    "H100": (989e12, 3.35e12),
    "A100": (312e12, 1.555e12),
}


def limits(device_kind: str) -> tuple[float, float] | None:
    """(FLOP/s, bytes/s) of a device that is known."""
    return next((value for name, value in LIMITS.items() if name in device_kind), None)
