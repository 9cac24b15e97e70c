"""`python -m experiments.paper`: see `experiments.paper.sweep`."""

import sys

from experiments.paper.sweep import main

sys.exit(main())
