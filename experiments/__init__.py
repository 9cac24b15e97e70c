"""Series of runs; importing a module of this package starts nothing."""
