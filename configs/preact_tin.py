"""PreActResNet18 on Tiny-ImageNet, 200 epochs; mixup + SEM unless another method is named.

    python -m sem_jax.main --config=configs/preact_tin.py
    python -m sem_jax.main --config=configs/preact_tin.py:cutmix+es+sem --config.data.dir=DIR

The paper's test accuracy in % (Table 1; single values, alpha and gamma of each row not reported):

    erm 59.41, mixup 60.39, mixup+sem 63.99, mixup+es 61.10, mixup+es+sem 65.11,
    cutmix 65.20, cutmix+sem 65.90, cutmix+es 65.59, cutmix+es+sem 66.66

The stem keeps the 64 pixels (--config.model.stem=3x3s2 halves them: a quarter of the cost, lower accuracy).

The literal reading of the paper and of the code that its numbers most likely rest on; docs/reproducing.md has the
differences to the library's defaults.
"""

from sem_jax.config import apply_method, get_default


def get_config(method: str = ""):
    cfg = get_default()
    cfg.data.name = "tiny_imagenet"
    cfg.model.name = "preact_resnet"
    cfg.model.depth = 18
    cfg.model.width = 64
    cfg.model.variant = "v2"  # the one of mixup-cifar10 and FMix
    cfg.mixer.scope = "batch"
    cfg.objective.bn_running = "three_passes"
    return apply_method(cfg, method)
