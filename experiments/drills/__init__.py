"""Drills, which break things on purpose and count what is lost, believed or executed; nothing is expected to be.

python -m experiments.drills.faults       # kills a run, damages its checkpoints, reads them while they are written
python -m experiments.drills.refusals     # broken data, hostile files, wrong configurations
"""
