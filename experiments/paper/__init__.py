"""The paper's tables and figure: `python -m experiments.paper`, then `python -m experiments.paper.report`."""
