"""A rented accelerator for a few minutes, used by one command: see `experiments.timebox.run`."""
