"""`python -m experiments.paper`: see `experiments.paper.sweep`."""

from experiments.paper.sweep import main

main()
