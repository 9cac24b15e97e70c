"""How fast a training step is here: `python -m experiments.speed [--suite=cpu|gpu] [--out=bench.json]`.

settings    the nets, batches and cases of a suite
cases       a case: a configuration, put together by the trainer's own functions, compiled and ready to be timed
timing      blocks of steps, interleaved between the cases, in wall and in CPU seconds
flops       one textbook count of operations and bytes per net, for every framework and variant
mixing      what mixing alone costs
flags       XLA flags, which are read once at start, tried in processes of their own
peers       the same steps in PyTorch
"""
