"""WRN-28-10 on CIFAR-100, 200 epochs; mixup + SEM unless another method is named.

    python -m sem_jax.main --config=configs/wrn_c100.py
    python -m sem_jax.main --config=configs/wrn_c100.py:cutmix+es+sem --config.data.dir=DIR

The paper's test accuracy in % (Table 1; single values, alpha and gamma of each row not reported):

    erm 79.06, mixup 82.33, mixup+sem 83.13, mixup+es 83.24, mixup+es+sem 83.65,
    cutmix 82.68, cutmix+sem 83.15, cutmix+es 83.05, cutmix+es+sem 83.44
"""

from sem_jax.config import apply_method, get_default


def get_config(method: str = ""):
    cfg = get_default()
    cfg.data.name = "cifar100"
    cfg.model.name = "wide_resnet"
    cfg.model.depth = 28
    cfg.model.width = 10
    return apply_method(cfg, method)
