"""PreActResNet18 on CIFAR-10, 200 epochs; mixup + SEM unless another method is named.

    python -m sem_jax.main --config=configs/preact_c10.py
    python -m sem_jax.main --config=configs/preact_c10.py:cutmix+es+sem --config.data.dir=DIR

The paper's test accuracy in % (Table 1; single values, alpha and gamma of each row not reported):

    erm 94.62, mixup 95.77, mixup+sem 96.45, mixup+es 95.85, mixup+es+sem 96.14,
    cutmix 95.94, cutmix+sem 96.45, cutmix+es 96.32, cutmix+es+sem 96.34

The literal reading of the paper and of the code that its numbers most likely rest on; docs/reproducing.md has the
differences to the library's defaults.
"""

from sem_jax.config import apply_method, get_default


def get_config(method: str = ""):
    cfg = get_default()
    cfg.data.name = "cifar10"
    cfg.model.name = "preact_resnet"
    cfg.model.depth = 18
    cfg.model.width = 64
    cfg.model.variant = "v2"  # the one of mixup-cifar10 and FMix
    cfg.data.mean = (0.4914, 0.4822, 0.4465)
    cfg.data.std = (0.2023, 0.1994, 0.2010)
    cfg.mixer.scope = "batch"
    cfg.objective.bn_running = "three_passes"
    return apply_method(cfg, method)
