"""A compiled program's costs, read from a text small enough to add up by hand."""

import pytest

from sem_jax.system.program_text import Collective, has_images, read_step, roofline_seconds

TEXT = """\
HloModule jit_call

%inner_body (p: f32[8]) -> f32[8] {
  %a.1 = f32[8]{0} fusion(f32[8]{0} %p), kind=kLoop, backend_config={"estimated_cycles":"7"}
}

%inner_condition (p: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(32)
  ROOT %less = pred[] compare(s32[] %i, s32[] %limit), direction=LT
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p.1 = f32[4,8]{1,0} parameter(0)
  %big = bf16[4,8]{1,0} fusion(f32[4,8]{1,0} %p.1), kind=kLoop, backend_config={"estimated_cycles":"100"}
  %mean = f32[8]{0} all-reduce(f32[8]{0} %big), to_apply=%add
  %looped = (s32[], f32[8]) while((s32[], f32[8]) %t), condition=%inner_condition, body=%inner_body
  %conv = (f32[2,4,4,3]{3,2,1,0}, u8[0]{0}) custom-call(f32[2,4,4,5]{3,2,1,0} %x, f32[3,3,5,3]{3,2,1,0} %w), \
window={size=3x3 pad=1_1x1_1}, custom_call_target="__cudnn$convForward"
  %x = f32[2,4,4,5]{3,2,1,0} parameter(1)
  %w = f32[3,3,5,3]{3,2,1,0} parameter(2)
}

%condition (p: (s32[], f32[8])) -> pred[] {
  ROOT %less.1 = pred[] compare(s32[] %i, s32[] %n), direction=LT
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %copy = f32[8]{0} fusion(f32[8]{0} %a), kind=kLoop, backend_config={"estimated_cycles":"5000"}
  %steps = (s32[], f32[8]) while((s32[], f32[8]) %t.0), condition=%condition, body=%body
}
"""


def test_a_step_is_the_body_of_the_loop_over_steps():
    step = read_step(TEXT)
    assert step.cycles == 100 + 32 * 7, (
        "what lies before the loop is no part of a step, and an inner loop counts 32 times"
    )
    assert [(loop.count, loop.cycles) for loop in step.loops] == [(32, 7)]
    assert step.collectives == (("all-reduce", 32, ((8,),)),) and step.host == ()
    assert [kernel.name for kernel in step.kernels] == ["fusion big", "all-reduce mean", "custom-call conv"]


def test_bytes_and_operations_of_a_kernel():
    fusion, _, conv = read_step(TEXT).kernels
    assert (fusion.bytes, fusion.flops) == (4 * 8 * 2 + 4 * 8 * 4, 0.0)
    assert conv.bytes == 4 * (2 * 4 * 4 * 3 + 2 * 4 * 4 * 5 + 3 * 3 * 5 * 3)
    assert conv.flops == pytest.approx(2 * (2 * 4 * 4 * 3) * (3 * 3 * 5)), (
        "a multiply-add for each place, in and out channel"
    )


@pytest.mark.parametrize(
    "line",
    [
        '%c = () custom-call(f32[8]{0} %p.1), custom_call_target="xla_ffi_python_gpu_callback"',
        "%s = (f32[8], u32[], token[]) send(f32[8]{0} %p.1, token[] %t), channel_id=2, is_host_transfer=true",
        "%o = token[] outfeed(f32[8]{0} %p.1, token[] %t), outfeed_shape=f32[8]{0}",
    ],
)
def test_what_waits_for_the_host_is_found_anywhere(line):
    assert len(read_step(TEXT.replace("  %big = ", f"  {line}\n  %big = ")).host) == 1
    assert len(read_step(TEXT.replace("  %copy = ", f"  {line}\n  %copy = ")).host) == 1


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((128, 32, 32, 3), True),
        ((3, 128, 32, 32), True),
        ((32, 32, 3), True),
        ((128, 3072), True),
        ((128, 1024, 3), True),
        ((3, 3, 32, 64), False),
        ((3, 3, 32, 32), False),
        ((128, 512), False),
        ((32, 32), False),
        ((), False),
    ],
)
def test_images_among_what_is_exchanged(shape, found):
    assert has_images(Collective("all-gather", 0, ((64,), shape)), (32, 32, 3)) == found


def test_a_batch_is_not_taken_for_a_small_image():
    features = Collective("all-gather", 0, ((64, 128),))
    assert not has_images(features, (8, 8, 1)), "64 images of 8x8 pixels"
    assert has_images(Collective("all-gather", 0, ((64, 8, 8, 1),)), (8, 8, 1))


def test_a_stride_makes_a_convolution_cheaper():
    strided = TEXT.replace("f32[2,4,4,3]", "f32[2,2,2,3]").replace("size=3x3 pad", "size=3x3 stride=2x2 pad")
    assert read_step(strided).kernels[2].flops == pytest.approx(2 * (2 * 2 * 2 * 3) * (3 * 3 * 5))


def test_the_roofline_takes_the_longer_of_moving_and_computing():
    step = read_step(TEXT)
    moving = sum(kernel.bytes for kernel in step.kernels)
    assert roofline_seconds(step, flops=1e30, bandwidth=2.0) == pytest.approx(moving / 2.0)
    computed = roofline_seconds(step, flops=1.0, bandwidth=1e30)
    assert computed == pytest.approx(step.kernels[2].flops)


def test_a_program_without_loop_is_refused():
    with pytest.raises(ValueError, match="no loop"):
        read_step("ENTRY %main (a: f32[8]) -> f32[8] {\n}\n")
