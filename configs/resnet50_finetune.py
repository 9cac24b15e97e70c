"""A ResNet-50 that starts from published weights, on photographs of your own, 224 pixels, 20 epochs; mixup + SEM.

    python -m sem_jax.main --config=configs/resnet50_finetune.py --config.data.dir=photos \
      --config.model.init_from=hf://timm/resnet50.a1_in1k        # or a file: resnet50.pth; photos/train/<class>/*.jpg
    python -m sem_jax.main --config=configs/resnet50_finetune.py:mixup --config.data.dir=photos \
      --config.model.init_from=resnet50.pth --config.optim.freeze=features                     # a linear probe

A tenth of the learning rate of a training from scratch, falling by a cosine after one epoch of warm-up; a crop after a
border of 28 pixels, mirrored half of the time. alpha is 0.2 for mixup, as it is used on ImageNet, and 1 for CutMix. The
numbers are common ones and have not been tuned; no accuracy is promised. docs/fine_tuning.md says what else can be
started from.
"""

from sem_jax.config import apply_method, get_default


def get_config(method: str = ""):
    cfg = get_default()
    cfg.data.name = "image_folder"
    cfg.data.image_size = 224
    cfg.data.crop_padding = 28
    cfg.model.name = "resnet"
    cfg.model.depth = 50
    cfg.model.width = 64
    cfg.model.stem = "7x7s2"
    cfg.optim.learning_rate = 0.01
    cfg.optim.schedule = "cosine"
    cfg.optim.warmup_epochs = 1.0
    cfg.train.epochs = 20
    cfg.train.batch_size = 64
    cfg.runtime.eval_batch_size = 64  # no more memory than training takes
    apply_method(cfg, method)
    cfg.mixer.alpha = 0.2 if cfg.mixer.name == "mixup" else 1.0
    return cfg
