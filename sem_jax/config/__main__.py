"""Prints the page of all settings: `python -m sem_jax.config > docs/settings.md`."""

from sem_jax.config.fields import describe

if __name__ == "__main__":
    print(describe(), end="")
