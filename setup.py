"""Puts the files of configs/ into the package, as sem_jax/configs; all else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["sem_jax*"]), "sem_jax.configs"], package_dir={"sem_jax.configs": "configs"})
