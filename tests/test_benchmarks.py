"""Benchmarks: what they count and how they time, worked by hand."""

import subprocess

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import weight_templates as wt
from benchmarks import (
    breakdown,
    expansion,
    flops,
    growth,
    initialize,
    interleave,
    memory,
    performance,
    pipeline,
    pretrain_step,
    products,
    startup,
)
from weight_templates.constrained import constrain, factored_share
from weight_templates.counting import count_mae

from .helpers import CONSTRAINTS, ENHANCED, refused


def test_flops_of_a_step_have_attention_by_hand():
    """Four patches, one of them visible: 2 tokens of 4 channels in the encoder, 5 of 8 in the decoder."""
    vit, decoder = wt.ViTConfig(image=8, depth=1, heads=1, head_dim=4), wt.DecoderConfig(depth=1, width=8, heads=1)
    attention = 2 * 2 * (2 * 2 * 4) + 2 * 2 * (5 * 5 * 8)
    assert flops.of_step(vit, decoder, 7) == 3 * 7 * (count_mae(vit, decoder) + attention)


def test_flops_of_expansion_by_hand(key):
    """A core of 5 x 6 x 7 to 36 x 16 x 16: columns, rows, then slices; factored, slices alone. SwiGLU takes 15 rows of 16."""
    tucker = eqx.filter_eval_shape(constrain, ENHANCED, CONSTRAINTS["tucker"], "unified", key=key)
    expansion = 2 * (5 * 6 * 7 * 16 + 5 * 6 * 16 * 16 + 36 * 5 * 16 * 16)
    assert flops.of_expansion(tucker) == expansion
    assert flops.of_expansion(tucker, factored=True) == 2 * 36 * 5 * 6 * 7
    assert flops.of_constraint(tucker, 100, factored=False) == 3 * expansion
    assert flops.of_weights(tucker, 100, factored=False) == expansion + 2 * 100 * 3 * (4 * 16 + 8 * 15) * 16


def test_what_is_counted_follows_the_ranks():
    points = growth.panels(64)["ranks"]
    for line in ("tucker", "tucker, factored"):
        assert growth.counted(line, points[24]) < growth.counted(line, points[192]), line
    assert growth.chosen(points[24]) == "factored"
    assert growth.told([24, 48, 64, 80, 96, 192]) == ["24", "48", "64", "", "96", "192"]


@pytest.mark.parametrize("rank", [24, 96])
@pytest.mark.parametrize("seen", [20, 1088])
def test_what_auto_counts_is_what_xla_counts(rank, seen):
    """Whatever pays: the expansion at few tokens, the products at many."""
    network, _ = growth.constrained(growth.Point(64, ranks=(24, rank, rank)))
    factored, expanded = (flops.of_weights(network, seen, factored) for factored in (True, False))
    assert eqx.filter_eval_shape(factored_share, network, seen) == pytest.approx(factored / expanded, rel=0.01)


def test_a_quick_page_leaves_the_results_alone_and_names_its_commands(monkeypatch, tmp_path):
    monkeypatch.setattr(performance.tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    monkeypatch.setattr(performance, "ROOT", tmp_path / "nowhere")
    run = []
    monkeypatch.setattr(
        performance.subprocess,
        "run",
        lambda command, **rest: run.append(command) or subprocess.CompletedProcess(command, 0, "| a table |\n"),
    )
    performance.main(performance.Config(quick=True))
    page = (tmp_path / "performance.md").read_text()
    assert f"`python benchmarks/growth.py --picture={tmp_path}/growth.png --rounds=2 --batch=2`" in page
    assert "`python benchmarks/memory.py --batches=2`" in page
    assert not (tmp_path / "nowhere").exists()
    assert len(run) == 1 + len(performance.PARTS)


def test_peak_memory_by_hand():
    """Two arguments and two results of 4 kB, one pair of them in the same place."""

    def program(x, y):
        return x + 1, x * y

    x = jnp.ones(1024)
    planned = jax.jit(program, donate_argnums=0).lower(x, x).compile().memory_analysis()
    kept = memory.peak(planned) - planned.temp_size_in_bytes
    assert 3 * 4096 <= kept < 3 * 4096 + 100  # XLA adds a pointer for each result


def test_a_timed_start_is_a_users(monkeypatch):
    """The command starts itself again with its allocator tuned, and finds no programs compiled before."""
    monkeypatch.setenv("GLIBC_TUNABLES", "as cli.run leaves it")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "likewise")
    assert not {"GLIBC_TUNABLES", "JAX_COMPILATION_CACHE_DIR"} & startup.fresh("elsewhere").keys()
    assert startup.fresh("elsewhere")["XDG_CACHE_HOME"] == "elsewhere"


@pytest.mark.parametrize(
    ("benchmark", "mistake"),
    [
        (expansion, {"batch": 0}),
        (growth, {"batch": 0}),
        (initialize, {"batch": 0}),
        (initialize, {"heads": (3, 0)}),
        (memory, {"batches": (-1,)}),
        (memory, {"batches": ()}),
        (pipeline, {"batch": 0}),
        (pipeline, {"size": 0}),
        (pretrain_step, {"batches": (64, 0)}),
        (products, {"batch": 0}),
        (products, {"cores": 0}),
    ],
    ids=lambda x: "" if isinstance(x, dict) else x.__name__,
)
def test_mistakes_are_one_sentence(benchmark, mistake, capsys):
    said = refused(capsys, lambda: benchmark.main(benchmark.Config(**mistake)))
    assert all(f"--{name}" in said for name in mistake)


def test_quartiles_stay_within_the_turns():
    assert interleave.timing([1.0, 1.2], [1.0, 1.0]).spread == pytest.approx((1.05, 1.15))


def test_a_gpu_that_is_not_there(capsys, monkeypatch):
    pytest.importorskip("torch")
    for name in ("JAX_PLATFORMS", "XLA_PYTHON_CLIENT_PREALLOCATE"):  # both are put back afterwards
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    said = refused(capsys, lambda: pretrain_step.main(pretrain_step.Config(device="gpu")))
    assert "say --device cpu" in said


def test_torch_is_all_on_one_device():
    """A model without memory takes a batch without memory, and nothing of it lies elsewhere."""
    torch = pytest.importorskip("torch")
    from benchmarks import torch_mae

    model = torch_mae.MAE(*pretrain_step.SIZES["tiny"]).to("meta")
    made = model(torch.zeros(2, 32, 32, 3, device="meta"))
    assert made.device.type == "meta"
    assert {"near", "far", "pixels"} == dict(model.named_buffers()).keys()


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ('dot.1 = f32[8,4]{1,0} dot(a, b), metadata={op_name="jit(step)/jvp(project)/dot_general"}', "products"),
        ('dot.2 = f32[4,4]{1,0} dot(a, b), metadata={op_name="jit(step)/transpose(jvp(mlp))/dot_general"}', "products"),
        (
            'dot.3 = f32[2,2]{1,0} dot(a, b), metadata={op_name="jit(step)/jvp(attention)/qd,kd->qk/dot_general"}',
            "attention",
        ),
        ('fusion.1 = (f32[8]{0}, f32[]) fusion(a), metadata={op_name="jit(step)/jvp(mlp)/logistic"}', "feed-forward"),
        ('rsqrt_fusion = f32[8]{0} fusion(a), metadata={op_name="jit(step)/jvp(norm)/rsqrt"}', "norms"),
        (
            'copy.5 = f32[8,4]{0,1} copy(a), metadata={op_name="jit(step)/jvp(project)/transpose"}',
            "copies and transposes",
        ),
        ('fusion.9 = f32[8,4]{0,1} fusion(a), metadata={op_name="jit(step)/adamw/mul"}', "optimiser"),
        ('fusion.7 = f32[8,4]{0,1} fusion(a), metadata={op_name="jit(step)/jvp(loss)/mul"}', "rest"),
        (
            'dot.2 = f32[8,4]{0,1} dot(a, b), metadata={op_name="jit(step)/transpose(jvp(expand))/dot_general"}',
            "expansion",
        ),
        ("ROOT call.1 = f32[8,4]{0,1} call(a), to_apply=other", None),
    ],
    ids=lambda x: x.split(" = ")[0] if x else "holds others",
)
def test_operations_and_their_kinds(line, kind):
    """Lines as XLA writes them."""
    ((name, rest),) = breakdown.operations(f"ENTRY %main {{\n  {line}\n}}")
    assert breakdown.kind_of(name, rest) == kind


def test_a_step_by_kind_is_of_median_steps():
    """Three turns, the second disturbed, one operation seen in but one of them; two of a kind add up."""
    turns = [{"a": ("products", s), "b": ("products", 1.0), "c": ("norms", 2.0)} for s in (3.0, 9.0, 4.0)]
    turns[1]["d"] = ("rest", 1.0)
    spent = breakdown.summed(turns)
    assert spent == dict.fromkeys(breakdown.KINDS, 0.0) | {"products": 5.0, "norms": 2.0}


def test_a_step_at_any_width_is_the_mean_of_a_turn():
    config = pretrain_step.Config(families=("tucker",), widths=(3, 6))
    times = {"none": [4.0, 4.0], "tucker, sliced to 3 heads": [1.0, 2.0], "tucker, sliced to 6 heads": [3.0, 6.0]}
    found = pretrain_step.with_means(times, config)
    assert found == times | {"tucker, sliced widths": [2.0, 4.0]}
    assert [*found][1] == "tucker, sliced widths"


def test_products_are_a_linears():
    """Both frameworks' three products, against PyTorch's own gradients of a linear layer, on the same numbers."""
    torch = pytest.importorskip("torch")
    x, w, g = (torch.randn(shape) for shape in products.sizes(7, 5, 3))
    y = torch.nn.functional.linear(x.requires_grad_(), w.requires_grad_())
    y.backward(g)
    expected = dict(zip(products.KINDS, (y.detach(), x.grad, w.grad), strict=True))
    ours, theirs = products.jax_products(), products.torch_products()
    for kind, value in expected.items():
        own = ours[kind](*(jnp.asarray(a.detach().numpy()) for a in (x, w, g)))
        assert jnp.allclose(own, value.numpy(), atol=1e-5), kind
        assert torch.allclose(theirs[kind](x.detach(), w.detach(), g), value, atol=1e-5), kind


def test_peaks_of_a_device_by_hand():
    assert pretrain_step.at_most((1 * 10**9, 2 * 10**9), (3 * 10**9, 6 * 10**9)) == "5.0"
    assert pretrain_step.at_most((1 * 10**9, 6 * 10**9), (3 * 10**9, 6 * 10**9)) == "at most 5.0"
