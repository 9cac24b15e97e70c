"""PreActResNet18 on CIFAR-100, 200 epochs; mixup + SEM unless another method is named.

    python -m sem_jax.main --config=configs/preact_c100.py
    python -m sem_jax.main --config=configs/preact_c100.py:cutmix+es+sem --config.data.dir=DIR

The paper's test accuracy in % (Table 1; single values, alpha and gamma of each row not reported):

    erm 74.97, mixup 77.44, mixup+sem 79.31, mixup+es 79.49, mixup+es+sem 80.67,
    cutmix 79.57, cutmix+sem 80.18, cutmix+es 79.70, cutmix+es+sem 80.30

The literal reading of the paper and of the code that its numbers most likely rest on; docs/reproducing.md has the
differences to the library's defaults.
"""

from sem_jax.config import apply_method, get_default


def get_config(method: str = ""):
    cfg = get_default()
    cfg.data.name = "cifar100"
    cfg.model.name = "preact_resnet"
    cfg.model.depth = 18
    cfg.model.width = 64
    cfg.model.variant = "v2"  # the one of mixup-cifar10 and FMix
    cfg.data.mean = (0.4914, 0.4822, 0.4465)  # of CIFAR-10, as there
    cfg.data.std = (0.2023, 0.1994, 0.2010)
    cfg.mixer.scope = "batch"
    cfg.objective.bn_running = "three_passes"
    return apply_method(cfg, method)
