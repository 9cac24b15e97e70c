"""How fast a training step is here: `python -m experiments.speed [--suite=cpu|gpu] [--out=bench.json]`.

flops       one textbook count of operations and bytes per net, for every framework and variant
cases       the training steps that are measured: ERM, mixup, CutMix, SEM in two and in three passes, every mixer ...
timing      blocks of steps, interleaved between the cases, in wall and in CPU seconds
goals       what has to be reached, beside what was measured
flags       XLA flags, which are read once at start, tried in processes of their own
"""
