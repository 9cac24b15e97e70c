"""MLP-Mixer with patches of 4 pixels on CIFAR-10, AdamW, 200 epochs; mixup + SEM unless another method is named.

    python -m sem_jax.main --config=configs/mlp_mixer_c10.py --config.data.dir=DIR
    python -m sem_jax.main --config=configs/mlp_mixer_c10.py:cutmix+sem --config.data.dir=DIR

Width 256, 8 blocks. Not a net of the paper, which leaves open whether SEM holds for vision MLPs; no accuracy of a
whole run is known yet.
"""

from sem_jax.config import apply_method, get_default


def get_config(method: str = ""):
    cfg = get_default()
    cfg.data.name = "cifar10"
    cfg.model.name = "mlp_mixer"
    cfg.model.patch_size = 4
    cfg.model.width = 256
    cfg.model.depth = 8
    cfg.optim.name = "adamw"
    cfg.optim.learning_rate = 1e-3
    cfg.optim.weight_decay = 0.05
    cfg.optim.schedule = "onecycle"  # its rise is the warm-up, whatever the number of epochs
    return apply_method(cfg, method)
