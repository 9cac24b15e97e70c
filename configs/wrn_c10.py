"""WRN-28-10 on CIFAR-10, 200 epochs; mixup + SEM unless another method is named.

    python -m sem_jax.main --config=configs/wrn_c10.py
    python -m sem_jax.main --config=configs/wrn_c10.py:cutmix+es+sem --config.data.dir=DIR

The paper's test accuracy in % (Table 1; single values, alpha and gamma of each row not reported):

    erm 96.40, mixup 96.99, mixup+sem 97.36, mixup+es 97.18, mixup+es+sem 97.42,
    cutmix 97.04, cutmix+sem 97.28, cutmix+es 96.99, cutmix+es+sem 97.14

The literal reading of the paper and of the code that its numbers most likely rest on; docs/reproducing.md has the
differences to the library's defaults.
"""

from sem_jax.config import apply_method, get_default


def get_config(method: str = ""):
    cfg = get_default()
    cfg.data.name = "cifar10"
    cfg.model.name = "wide_resnet"
    cfg.model.depth = 28
    cfg.model.width = 10
    cfg.data.mean = (0.4914, 0.4822, 0.4465)
    cfg.data.std = (0.2023, 0.1994, 0.2010)
    cfg.mixer.scope = "batch"
    cfg.objective.bn_running = "three_passes"
    return apply_method(cfg, method)
