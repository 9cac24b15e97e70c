"""PreActResNet18 on CIFAR-100, 200 epochs; mixup + SEM unless another method is named.

    python -m sem_jax.main --config=configs/preact_c100.py
    python -m sem_jax.main --config=configs/preact_c100.py:cutmix+es+sem --config.data.dir=DIR

The paper's test accuracy in % (Table 1; single values, alpha and gamma of each row not reported):

    erm 74.97, mixup 77.44, mixup+sem 79.31, mixup+es 79.49, mixup+es+sem 80.67,
    cutmix 79.57, cutmix+sem 80.18, cutmix+es 79.70, cutmix+es+sem 80.30
"""

from sem_jax.config import apply_method, get_default


def get_config(method: str = ""):
    cfg = get_default()
    cfg.data.name = "cifar100"
    cfg.model.name = "preact_resnet"
    cfg.model.depth = 18
    cfg.model.width = 64
    return apply_method(cfg, method)
