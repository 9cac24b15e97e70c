"""Every mixer, with SEM and without, trains one step of each kind of backbone, in the trainer's own `Programs`.

The tests record what a step mixes. From that and a separate pass of the model they compute weights, loss and penalty
again in float64.
"""

import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import scipy.special

from sem_jax import config as config_lib
from sem_jax.errors import ConfigError
from sem_jax.interfaces import Dataset, Hooked, Split
from sem_jax.mixers import MIXERS
from sem_jax.models import make_model
from sem_jax.runs import opening as loading
from sem_jax.training import assemble
from sem_jax.training.programs import Programs

B, K, SIDE, GAMMA = 8, 10, 16, 0.3
BACKBONES = {
    "preact_resnet": {"depth": 18, "width": 4},
    "vit": {"depth": 1, "width": 16, "patch_size": 4},
    "mlp_mixer": {"depth": 1, "width": 16, "patch_size": 4},
}
LAST = {"preact_resnet": 4, "vit": 3, "mlp_mixer": 3}  # the stage that is pooled
MEAN_POOLED = ("preact_resnet", "mlp_mixer")
# All mixers with their defaults; those that draw a way of mixing once a step, also with each way alone.
ROWS = [
    *[(name, "") for name in MIXERS if name != "alignmix"],
    *[("manifold_mixup", f"layers=({k},)") for k in (1, 2)],
    *[("alignmix", f"input_prob={p}") for p in (0.0, 1.0)],
]
EVERY = [(*row, sem, backbone) for row in ROWS for sem in (False, True) for backbone in BACKBONES]
EVERY = [row for row in EVERY if row[0] != "none" or not row[2]]  # there is no penalty without mixing
HIDDEN = ("manifold_mixup", "alignmix")


def make_dataset():
    """Noise, with one value for each image in the last channel, whose mean shows the shares of a mixture.

    Every image has its own label, so that no two pairs have the same targets.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (B, SIDE, SIDE, 3), np.uint8)
    images[..., 2] = (20 + 30 * np.arange(B))[:, None, None]
    split = Split(images, np.arange(B, dtype=np.int32))
    return Dataset("arrays", {"train": split}, tuple("abcdefghij"), (0.5,) * 3, (0.25,) * 3, "0" * 64)


DATASET = make_dataset()


def configure(backbone, mixer="none", options="", sem=False, **changes):
    cfg = config_lib.get_default()
    cfg.data.name, cfg.data.crop_padding, cfg.data.flip = "arrays", 0, False
    cfg.model.update(BACKBONES[backbone] | {"name": backbone})
    cfg.mixer.name, cfg.mixer.options = mixer, options
    cfg.mixer.scorer = "a run" if "attentive_cutmix" in mixer + options else ""
    cfg.objective.gamma = GAMMA if sem else 0.0
    cfg.train.epochs, cfg.train.batch_size = 200, B
    cfg.optim.schedule = "constant"
    cfg.runtime.devices, cfg.runtime.progress = 1, False
    for name, value in changes.items():
        cfg.mixer[name] = value
    config_lib.validate(cfg)
    return cfg


@functools.cache
def start(backbone):
    """The model's initial state, on the host, with which every row begins."""
    return jax.device_get(Programs(configure(backbone), DATASET).initial_state())


@functools.cache
def forward(backbone):
    """(variables, images or a Hooked) -> Outputs in training mode, compiled apart from any step."""
    model = make_model(name=backbone, num_classes=K, **BACKBONES[backbone])

    @jax.jit
    def run(variables, given):
        images, hook = given, {}
        if isinstance(given, Hooked):
            images, hook = given.images, {"at_stage": given.at_stage(LAST[backbone])}
        return model.apply(variables, images, train=True, mutable=["batch_stats"], **hook)[0]

    return run


@pytest.fixture
def scorer(monkeypatch):
    """An untrained net in the place of the run that is the frozen net of some mixers."""

    def open_run(folder, **_):
        state = start("mlp_mixer")
        data = SimpleNamespace(image_shape=(SIDE, SIDE, 3), mean=DATASET.mean, std=DATASET.std)
        model = make_model(name="mlp_mixer", num_classes=K, **BACKBONES["mlp_mixer"])
        return SimpleNamespace(model=model, variables={"params": state.params}, data=data)

    monkeypatch.setattr(loading, "open_run", open_run)


@pytest.fixture
def seen(monkeypatch, scorer):
    """(images, labels, mixed images, Mix) of every step with a mixer."""
    steps = []
    make_mix = assemble.make_mix

    def make_watched(*arguments, **options):
        mix = make_mix(*arguments, **options)

        def watched(key, images, take=None, **given):
            mixed, drawn = mix(key, images, take, **given)
            jax.debug.callback(lambda *arrays: steps.append(arrays), images, given["labels"], mixed, drawn)
            return mixed, drawn

        return watched

    monkeypatch.setattr(assemble, "make_mix", make_watched)
    return steps


def one_step(run, before):
    """The state after a step of the trainer, and the metrics of the step."""
    order, state = run.order(int(before.step)), jax.device_put(before, run.replicated)
    stage = run.mixing if run.mixing.steps else run.plain
    sums = run.prepare(stage, state, order)
    after, sums = run.run(stage, state, sums, order, first=0, count=1)
    jax.effects_barrier()
    sums = jax.tree.map(lambda x: x.item(), jax.device_get(sums))
    assert sums.bad_steps == 0 and {mean.count for mean in sums.means.values()} == {1}
    return jax.device_get(after), {name: mean.value for name, mean in sums.means.items()}


def make_run(*row, **changes):
    return Programs(configure(*row, **changes), DATASET)


def again(backbone, before, images, labels, mixed, mix):
    """Metrics of a step in float64, by the equations, from the model's outputs."""
    variables = {"params": before.params, "batch_stats": before.batch_stats}
    run, (lam, pairing) = forward(backbone), mix
    of_mixed, of_clean = (jax.tree.map(np.float64, run(variables, x)) for x in (mixed, images))
    lam, hit = np.float64(lam), of_mixed.logits.argmax(1)
    log_p = scipy.special.log_softmax(of_mixed.logits, axis=1)
    own, other = (np.take_along_axis(log_p, y[:, None], 1)[:, 0] for y in (labels, labels[pairing]))
    mixture = lam[:, None] * of_clean.features + (1 - lam[:, None]) * of_clean.features[pairing]
    return {
        "label_loss": -(lam * own + (1 - lam) * other).mean(),
        "accuracy": (lam * (hit == labels) + (1 - lam) * (hit == labels[pairing])).mean(),
        "penalty": np.sqrt(np.square(of_mixed.features - mixture).sum(1)).mean(),
        "feature_norm": np.sqrt(np.square(of_clean.features).sum(1)).mean(),
        "lam": lam.mean(),
    }


def check_pixels(mixer, images, pixels, mix):
    """The last channel's mean in a mixture is that of its two images, weighted by the lam of the label."""
    value, (lam, pairing) = images[:, 0, 0, 2], mix
    assert (lam >= 0).all() and (lam <= 1).all()
    if mixer in HIDDEN + ("none",):  # nothing is mixed, or it is in the model
        np.testing.assert_array_equal(pixels, images)
    else:
        np.testing.assert_allclose(pixels[..., 2].mean((1, 2)), lam * value + (1 - lam) * value[pairing], atol=1e-5)


def check_step(mixer, sem, backbone, before, after, metrics, step):
    """Checks what was mixed, the metrics and the change of the parameters."""
    images, labels, mixed, mix = jax.tree.map(np.asarray, step)
    check_pixels(mixer, images, mixed.images if isinstance(mixed, Hooked) else mixed, mix)
    expected = again(backbone, before, images, labels, mixed, mix)
    for name in set(expected) - (set() if sem else {"penalty", "feature_norm"}):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-3, atol=1e-4, err_msg=name)
    assert ("penalty" in metrics) == ("feature_norm" in metrics) == sem
    np.testing.assert_allclose(metrics["loss"], metrics["label_loss"] + GAMMA * metrics.get("penalty", 0), rtol=1e-5)
    check_update(before, after, metrics)


def check_update(before, after, metrics):
    """Checks that every parameter changed."""
    assert after.step == before.step + 1
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), after.params, before.params)
    assert min(jax.tree.leaves(moved)) > 0 and max(jax.tree.leaves(moved)) > 1e-4


def has_a_penalty(mixer, backbone, aligned):
    """False where the penalty is 0 by construction.

    Both marginals of AlignMix's plan are uniform, so an aligned step does not change the mean over the places, which
    two of the nets pool (see alignmix.py). Without mixing, mixed images are clean ones.
    """
    return mixer != "none" and not (mixer == "alignmix" and aligned and backbone in MEAN_POOLED)


def check_penalty(metrics, expected):
    """Checks that the penalty is far above rounding, unless all lam are 0 or 1, or small where Sinkhorn stops early."""
    relative = metrics["penalty"] / metrics["feature_norm"]
    if not expected:
        assert relative < 0.1
    elif 0 < metrics["lam"] < 1:
        assert relative > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("mixer", "options", "sem", "backbone"), EVERY)
def test_every_mixer_trains_one_step_of_every_backbone(seen, mixer, options, sem, backbone):
    before = start(backbone)
    after, metrics = one_step(make_run(backbone, mixer, options, sem), before)
    # Logits begin small, so that all ten classes are about as likely.
    assert abs(metrics["label_loss"] - np.log(K)) < 0.5
    if mixer == "none":
        assert not seen and {"lam", "penalty"}.isdisjoint(metrics) and metrics["loss"] == metrics["label_loss"]
        check_update(before, after, metrics)
        return
    (step,) = seen
    check_step(mixer, sem, backbone, before, after, metrics, step)
    assert 0 < metrics["lam"] < 1
    if sem:
        check_penalty(metrics, has_a_penalty(mixer, backbone, options == "input_prob=0.0"))


# Each mixer at least once. Every row has a mixer of hidden states, since only its `Hooked` shows which mixer was drawn.
# On one grid and without transport PuzzleMix compiles in a fraction of the time.
TOGETHER = {
    ("preact_resnet", False): ("cutmix", "saliencymix", "manifold_mixup"),
    ("vit", True): ("puzzlemix(blocks=(4,), move=False)", "fmix", "attentive_cutmix", "alignmix"),
    ("mlp_mixer", True): ("none", "mixup", "resizemix", "gridmix", "smoothmix", "manifold_mixup"),
}


def test_every_mixer_is_in_one_of_the_programs():
    assert {text.partition("(")[0] for row in TOGETHER.values() for text in row} == {*MIXERS} - {"choice"}


@pytest.mark.parametrize(("backbone", "sem"), TOGETHER)
def test_one_program_trains_with_several_mixers_in_turn(seen, backbone, sem):
    """A `choice`, drawn once a step, checks the same as the slow test above with three compilations, not a hundred."""
    choices = TOGETHER[backbone, sem]
    names = [text.partition("(")[0] for text in choices]
    run = make_run(backbone, "choice", f"choices={choices}", sem, scope="batch")
    before, left = start(backbone), set(names)
    for _ in range(50):  # by chance about 10 are needed
        after, metrics = one_step(run, before)
        step = seen.pop()
        drawn = step[2].drawn
        name = names[int(drawn.draw.index)]
        if name in left:
            if sem:
                check_step(name, sem, backbone, before, after, metrics, step)
                aligned = name == "alignmix" and not drawn.step[names.index("alignmix")].on_images
                check_penalty(metrics, has_a_penalty(name, backbone, aligned))
            else:  # the largest net: it is compiled only once
                images, _, mixed, mix = jax.tree.map(np.asarray, step)
                check_pixels(name, images, mixed.images, mix)
                check_update(before, after, metrics)
                assert "penalty" not in metrics and metrics["loss"] == metrics["label_loss"]
        left -= {name}
        before = after
    assert not left


@pytest.mark.slow
def test_where_nothing_is_mixed_the_penalty_is_zero_and_its_gradient_finite(seen):
    """With prob 0 every pair has lam 1, the mixed images are the clean ones, and the step is that of plain ERM."""
    before = start("vit")
    after, metrics = one_step(make_run("vit", "mixup", sem=True, prob=0.0), before)
    plain, plain_metrics = one_step(make_run("vit"), before)
    assert metrics["penalty"] == 0.0 and metrics["lam"] == 1.0
    np.testing.assert_allclose(metrics["loss"], plain_metrics["loss"], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after.params, plain.params)


def test_a_scorer_of_other_images_is_refused(seen, monkeypatch):
    data = SimpleNamespace(image_shape=(32, 32, 3))
    monkeypatch.setattr(loading, "open_run", lambda folder, **_: SimpleNamespace(data=data))
    with pytest.raises(ConfigError, match=r"mixer.scorer must be .* shape \(16, 16, 3\), got \(32, 32, 3\)"):
        Programs(configure("vit", "attentive_cutmix"), DATASET)
