"""ViT-Tiny with patches of 4 pixels on CIFAR-10, AdamW, 200 epochs; mixup + SEM unless another method is named.

    python -m sem_jax.main --config=configs/vit_c10.py --config.data.dir=DIR
    python -m sem_jax.main --config=configs/vit_c10.py:cutmix+sem --config.model.pool=mean

5.4 M parameters. Not a net of the paper, which leaves open whether SEM holds for transformers; no accuracy of a whole
run is known yet. LayerNorm keeps nothing between steps: clean and mixed images do not meet in it. It also keeps the
features about sqrt(width) long, so that the paper's distance at its gamma is a strong pull: in short runs
--config.objective.distance=normalised costs less (experiments/results/mixers/README.md).
"""

from sem_jax.config import apply_method, get_default


def get_config(method: str = ""):
    cfg = get_default()
    cfg.data.name = "cifar10"
    cfg.model.name = "vit"
    cfg.model.patch_size = 4
    cfg.model.width = 192
    cfg.model.depth = 12
    cfg.model.heads = 3
    cfg.optim.name = "adamw"
    cfg.optim.learning_rate = 1e-3
    cfg.optim.weight_decay = 0.05
    cfg.optim.schedule = "onecycle"  # its rise is the warm-up, whatever the number of epochs
    return apply_method(cfg, method)
