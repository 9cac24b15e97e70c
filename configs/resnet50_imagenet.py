"""ResNet-50 on ImageNet-like data, 224 pixels, 90 epochs, read from disk; mixup + SEM unless another method is named.

    python -m sem_jax.main --config=configs/resnet50_imagenet.py --config.data.dir=FOLDER     # train/ and val/ of JPEGs
    python -m sem_jax.main --config=configs/resnet50_imagenet.py:cutmix+es+sem --config.data.name=tfds \
      --config.data.dir=~/tensorflow_datasets/imagenet2012/5.1.0                              # as array_record

The recipe of He et al. (2016) as Goyal et al. (2017) give it: SGD with momentum 0.9, batch 256, learning rate 0.1 after
5 epochs of warm-up, a tenth of it from epochs 30, 60 and 80 on, weight decay 1e-4, random resized crops, mirrored half
of the time; the middle 224 of 256 pixels in evaluation. Other than there, the last BatchNorm of a block starts at 1,
not 0, and BatchNorm's parameters decay too. For another batch, scale the learning rate with it (Goyal et al.).
alpha is 0.2 for mixup (Zhang et al. 2018 find larger ones to underfit here) and 1 for CutMix (Yun et al. 2019).
The SEM paper has no ImageNet row: gamma is this package's default, and no accuracy of a whole run is known yet.
Needs grain: pip install -e .[grain]
"""

from sem_jax.config import apply_method, get_default


def get_config(method: str = ""):
    cfg = get_default()
    cfg.data.name = "image_folder"
    cfg.data.image_size = 224
    cfg.data.crop_padding = 0
    cfg.data.crop_scale = 0.08
    cfg.data.eval_crop = 0.875
    cfg.model.name = "resnet"
    cfg.model.depth = 50
    cfg.model.width = 64
    cfg.model.stem = "7x7s2"
    cfg.optim.learning_rate = 0.1
    cfg.optim.weight_decay = 1e-4
    cfg.optim.schedule = "step"
    cfg.optim.boundaries = (30 / 90, 60 / 90, 80 / 90)
    cfg.optim.warmup_epochs = 5.0
    cfg.train.epochs = 90
    cfg.train.batch_size = 256
    cfg.runtime.residency = "disk"
    cfg.runtime.eval_batch_size = 256  # no more memory than training takes
    apply_method(cfg, method)
    cfg.mixer.alpha = 0.2 if cfg.mixer.name == "mixup" else 1.0
    return cfg
