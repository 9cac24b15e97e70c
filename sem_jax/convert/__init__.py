"""PyTorch weights in and out: a state dict becomes a run folder that evaluation can score, and the other way round.

    python -m sem_jax.convert --from=resnet18.pth --workdir=runs/theirs --data=cifar10 --mean .5 .5 .5 --std .5 .5 .5
    python -m sem_jax.convert --workdir=runs/preact_c10 --to=preact18.safetensors [--checkpoint=best_val]

PreActResNet-18/-34 in the naming of mixup-cifar10 (conv1, layer1.0.bn1, layer2.0.shortcut.0, linear; v2 has a bn1
after the stem, v3 a bn at the end), WideResNets in that of block1.layer.0.convShortcut and fc, ResNet-18/-50 in
torchvision's. Family, depth, width and variant are told from the names and shapes in the file.

Read are .safetensors, and .pt or .pth as PyTorch's restricted loader allows: tensors, never code. How it is converted:
convolutions from [out in h w] to [h w in out], linear layers transposed, everything else as it is, bit for bit.
BatchNorm's epsilon, 1e-5, and the padding, symmetric, are the same on both sides. running_var is copied: PyTorch's was
averaged over unbiased batch variances, ours over biased ones, and only further training would tell. Of
num_batches_tracked, which nothing here reads, 0 is written.
"""

from sem_jax.convert.naming import NAMINGS, recognise, to_state_dict, to_variables
from sem_jax.convert.runs import export_weights, import_weights, read_state_dict

__all__ = [
    "NAMINGS",
    "export_weights",
    "import_weights",
    "read_state_dict",
    "recognise",
    "to_state_dict",
    "to_variables",
]
