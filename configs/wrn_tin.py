"""WRN-28-10 on Tiny-ImageNet, 200 epochs; mixup + SEM unless another method is named.

    python -m sem_jax.main --config=configs/wrn_tin.py
    python -m sem_jax.main --config=configs/wrn_tin.py:cutmix+es+sem --config.data.dir=DIR

The paper's test accuracy in % (Table 1; single values, alpha and gamma of each row not reported):

    erm 65.59, mixup 67.30, mixup+sem 69.62, mixup+es 69.18, mixup+es+sem 70.61,
    cutmix 70.18, cutmix+sem 71.26, cutmix+es 70.25, cutmix+es+sem 71.46

The stem keeps the 64 pixels (--config.model.stem=3x3s2 halves them: a quarter of the cost, lower accuracy).

The literal reading of the paper and of the code that its numbers most likely rest on; docs/reproducing.md has the
differences to the library's defaults.
"""

from sem_jax.config import apply_method, get_default


def get_config(method: str = ""):
    cfg = get_default()
    cfg.data.name = "tiny_imagenet"
    cfg.model.name = "wide_resnet"
    cfg.model.depth = 28
    cfg.model.width = 10
    cfg.mixer.scope = "batch"
    cfg.objective.bn_running = "three_passes"
    return apply_method(cfg, method)
