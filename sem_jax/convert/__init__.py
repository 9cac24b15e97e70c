"""Converts PyTorch weights: a state dict becomes a run folder that evaluation can score, and the other way round.

    python -m sem_jax convert --from=resnet18.pth --workdir=runs/theirs --data=cifar10 --mean .5 .5 .5 --std .5 .5 .5
    python -m sem_jax convert --workdir=runs/preact_c10 --to=preact18.safetensors [--checkpoint=best_val]

Known are PreActResNet-18/-34 with the names of mixup-cifar10 (conv1, layer1.0.bn1, layer2.0.shortcut.0, linear; v2 has
a bn1 after the stem, v3 a bn at the end), WideResNets with block1.layer.0.convShortcut and fc, and ResNet-18/-50 with
torchvision's names; ConvNeXts and ViTs with timm's or torchvision's, and MLP-Mixers with timm's. The names and shapes
in the file give family, depth, width and variant; a ViT has heads of 64 entries. Written are timm's names, where a
family has two. `model.init_from` takes the same files as the start of a run (docs/fine_tuning.md).

Files may be .safetensors, or .pt and .pth as PyTorch's restricted loader reads them: tensors, never code. Convolutions
are turned from [out in h w] to [h w in out] and linear layers transposed; everything else is copied bit for bit. Both
sides have BatchNorm's epsilon of 1e-5 and symmetric padding. PyTorch averages unbiased batch variances in running_var
and this package biased ones, which matters only in further training. num_batches_tracked is ignored when reading and
written as 0.
"""

from sem_jax.registry import on_demand

__getattr__, __dir__, __all__ = on_demand(
    __name__,
    {
        "sem_jax.convert.layouts": "NAMINGS",
        "sem_jax.convert.naming": "layout_of, recognise, to_state_dict, to_variables",
        "sem_jax.convert.pretrained": "open_start",
        "sem_jax.convert.files": "read_state_dict",
        "sem_jax.convert.runs": "import_weights, export_weights",
    },
)
