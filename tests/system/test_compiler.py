"""How a training step is compiled: options by device, and what the compiler refuses."""

import jax
import jax.numpy as jnp
import pytest

from sem_jax.errors import ConfigError
from sem_jax.system.compiler import VMEM_OPTION, compile_step, step_options


class Lowered:
    """Refuses any option, as a compiler that does not know it."""

    def __init__(self, says="No such compile option"):
        self.asked, self._says = [], says

    def compile(self, compiler_options=None):
        self.asked.append(compiler_options)
        if compiler_options:
            raise jax.errors.JaxRuntimeError(f"INVALID_ARGUMENT: {self._says}\nat line 3")
        return "compiled"


def test_a_device_without_options_is_compiled_as_always():
    assert step_options("NVIDIA H100 80GB HBM3", vmem=64) == step_options("cpu") == step_options("TPU v4") == {}
    assert compile_step(jax.jit(jnp.sin).lower(1.0), "cpu", vmem=64)(0.0) == 0.0


def test_options_chosen_here_are_dropped_where_the_compiler_refuses_them(capsys):
    lowered = Lowered()
    assert compile_step(lowered, "TPU v5 lite") == "compiled"
    assert lowered.asked == [{VMEM_OPTION: "49152"}, None]
    assert "No such compile option at line 3" in capsys.readouterr().out


def test_a_real_compiler_refuses_and_is_asked_again(capsys):
    assert compile_step(jax.jit(jnp.sin).lower(0.0), "TPU v5 lite")(0.0) == 0.0, "XLA:CPU does not know the option"
    assert f"Compiled without {VMEM_OPTION}" in capsys.readouterr().out


def test_an_option_of_the_configuration_is_not_dropped():
    with pytest.raises(ConfigError, match="runtime.vmem=48: the compiler says: INVALID_ARGUMENT: No such"):
        compile_step(Lowered(), "TPU v4", vmem=48)


def test_a_step_that_is_too_large_is_not_compiled_twice():
    lowered = Lowered("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm")
    with pytest.raises(jax.errors.JaxRuntimeError, match="memory space hbm"):
        compile_step(lowered, "TPU v5 lite")
    assert len(lowered.asked) == 1
