"""The command that makes backbones by the competitors' rules, its accounts, and a user's mistakes."""

import dataclasses
import json

import equinox as eqx
import jax.random as jr
import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

import weight_templates as wt
from experiments import baseline, finetune
from weight_templates import bank, cli, convert, data, training, trees
from weight_templates.baselines import pruning, selection
from weight_templates.config import DataOptions
from weight_templates.errors import UserError
from weight_templates.models import Classifier

from .helpers import BACKBONES, ENHANCED, GOLDEN, PLAIN, jpeg, refused, vit
from .helpers import mae as constrained_mae


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "bank.safetensors"
    about = {"data": "synthetic", "steps": 10, "batch": 8, "scaling": "submodel"}
    wt.save_bank(path, wt.Bank(constrained_mae(ENHANCED, "none", key=jr.key(0)), "none", about))
    return path


def parsed(tmp_path, *words):
    argv = [*map(str, words), f"--run.root={tmp_path}"]
    return cli.parse_command(baseline.METHODS, baseline.method, baseline.__doc__, argv)[1]


def call(tmp_path, *words):
    return baseline.main(parsed(tmp_path, *words))


def planned_cost(tmp_path, *words):
    """What --dry-run says."""
    return baseline.cost(parsed(tmp_path, *words))


def judging():
    """A classifier of the shape of the source, as a bank has it."""
    options = {"classes": 3, "pool": "mean"}
    return bank.build(ENHANCED, wt.Unconstrained(), "unified", "classify", options, key=jr.key(0))


TARGET = ["--depth=2", "--heads=2"]
FEW = ["--data.count=80"]


def test_every_method_leaves_a_model_and_its_account(tmp_path, source):
    commands = {
        "scratch": ["--model.image=16", "--model.heads=4", "--model.head-dim=4"],
        "mimetic": ["--model.image=16", "--model.heads=4", "--model.head-dim=4"],
        "weight-selection": [source],
        "isomorphic-pruning": [source, "--batches=1", *FEW],
        "front": [source],
        "hydravit": [source],
        "decomposed": [source],
        "dmae": [source, "--optim.steps=2", "--optim.batch=8", "--decoder.width=16", "--decoder.heads=2", *FEW],
    }
    network = ["--model.image=16", "--model.heads=4", "--model.head-dim=4", "--model.depth=3"]
    commands["tleg"] = [*network, *FEW, "--optim.batch=8", "--optim.steps=2"]
    commands["wave"] = [*commands["tleg"], "--fit.batch=8", "--fit.steps=2"]
    assert commands.keys() == baseline.METHODS.keys() - {"fine"}  # which is killed below
    for method, words in commands.items():
        made = call(tmp_path, method, *words, *TARGET)
        model = wt.load_model(made).model
        assert (model.config.depth, model.config.heads, model.config.image) == (2, 2, 16)
        cost = json.loads((made.parent / "summary.json").read_text())["cost"]
        trained = method in ("isomorphic-pruning", "dmae", "wave")
        assert (cost["size_flops"] > 0) == trained, method
        assert (cost["source_flops"] > 0) == (method not in ("scratch", "mimetic")), method
        assert (cost["transferred"] > 0) == (method not in ("scratch", "mimetic", "dmae")), method
        if method in ("wave", "tleg"):  # a template, and what goes with the size
            assert cost["transferred"] < trees.count(wt.ViT(model.config.resized(3, 4), key=jr.key(0))), method
        if method in ("weight-selection", "isomorphic-pruning", "front", "hydravit", "decomposed"):
            assert cost["transferred"] == trees.count(model), method
        planned = planned_cost(tmp_path, method, *words, *TARGET)
        told = cost["size_flops"] + (cost["source_flops"] if method in ("wave", "tleg") else 0)
        assert planned == pytest.approx(told, rel=1e-6), method
        if method in ("scratch", "dmae", "wave"):  # made once
            before = made.stat().st_mtime_ns
            assert call(tmp_path, method, *words, *TARGET).stat().st_mtime_ns == before
    assert len(list(tmp_path.glob("finetune/*/summary.json"))) == 1  # one teacher for two methods
    assert len(list(tmp_path.glob("baseline/*-auxiliary-*/summary.json"))) == 2
    hydra = wt.load_model(call(tmp_path, "hydravit", source, *TARGET)).model
    big = wt.expand(wt.load_bank(source).model.backbone)
    inner, width = hydra.config.inner, hydra.config.channels
    np.testing.assert_array_equal(hydra.blocks.attention.qkv, big.blocks.attention.qkv[:2, :, :inner, :width])
    np.testing.assert_array_equal(hydra.blocks.attention.out, big.blocks.attention.out[:2, :inner, :width])
    np.testing.assert_array_equal(hydra.embed.weight, big.embed.weight[:width])
    np.testing.assert_array_equal(hydra.norm.gain, big.norm.gain[:width])
    tuned = finetune.main(
        cli.parse(
            finetune.PRESETS,
            [str(made), *FEW, "--optim.batch=8", "--optim.steps=1", f"--run.root={tmp_path}"],
        )
    )
    assert tuned.exists()


@pytest.mark.large
def test_a_method_of_stages_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    """In the middle of the teacher's, of the templates' and of the size's training: the model is the same to the bit."""
    network = ["--model.image=16", "--model.heads=2", "--model.head-dim=4", "--model.depth=2"]
    words = ["fine", *network, *FEW, "--optim.batch=8", "--optim.steps=4", "--fit.batch=8", "--fit.steps=4"]
    words += ["--run.log-every=1", "--run.save-every=1", "--depth=1", "--heads=1"]
    straight = call(tmp_path / "straight", *words)
    record = training.Run.record
    for stage in ("full", "auxiliary", "L1H1"):

        def killed(self, stage=stage, **row):
            if stage in self.path.name and row["step"] == 3:
                raise KeyboardInterrupt
            record(self, **row)

        with monkeypatch.context() as patch:
            patch.setattr(training.Run, "record", killed)
            with pytest.raises(KeyboardInterrupt):
                call(tmp_path / "killed", *words)
    again = call(tmp_path / "killed", *words)
    assert again.read_bytes() == straight.read_bytes()
    cost = json.loads((again.parent / "summary.json").read_text())["cost"]
    assert min(cost["source_flops"], cost["size_flops"], cost["transferred"]) > 0
    assert [len(list((tmp_path / "killed").glob(f"{kind}/*"))) for kind in ("finetune", "baseline")] == [1, 2]


def test_mistakes(tmp_path, source, capsys, monkeypatch):
    plain = tmp_path / "vit.safetensors"
    convert.save_model(plain, vit(PLAIN), {})
    tucker = tmp_path / "tucker.safetensors"
    wt.save_bank(tucker, wt.Bank(constrained_mae(ENHANCED, key=jr.key(0)), "tucker", {}))
    teacher = tmp_path / "teacher.safetensors"
    convert.save_model(teacher, Classifier(vit(ENHANCED), 3, key=jr.key(0)), {})
    odd = tmp_path / "odd.safetensors"
    wide = dataclasses.replace(PLAIN, heads=5, head_dim=12)
    convert.export_model(odd, Classifier(vit(wide), 10, key=jr.key(0)), "timm", {})
    uneven = tmp_path / "uneven.safetensors"
    convert.save_model(uneven, vit(dataclasses.replace(ENHANCED, width=18)), {})
    half = tmp_path / "half.safetensors"  # of an auto-encoder whose decoder has lost a tensor
    theirs = safetensors.numpy.load_file(GOLDEN / "huggingface-mae" / "model.safetensors")
    safetensors.numpy.save_file({n: a for n, a in theirs.items() if n != "decoder.decoder_pred.bias"}, half)
    stranger = tmp_path / "stranger.safetensors"
    convert.save_model(stranger, Classifier(vit(ENHANCED), 10, key=jr.key(0)), {"classes": [*"abcdefghij"]})
    network = ["--model.image=16", "--model.heads=4", "--model.head-dim=4", "--model.depth=3"]
    conv = tmp_path / "conv.safetensors"
    convert.save_model(conv, BACKBONES["convnext"].create(key=jr.key(0)), {})
    judge = tmp_path / "judge.safetensors"
    wt.save_bank(judge, wt.Bank(judging(), "none", {}))
    unlabelled = tmp_path / "unlabelled"
    unlabelled.mkdir()
    (unlabelled / "a.jpg").write_bytes(jpeg(np.random.default_rng(0)))
    for words, says in (
        (["weight-selection"], ["no source was given", "weight-selection"]),
        (["weight-selection", tmp_path / "no.safetensors"], ["no.safetensors; give the path of one."]),
        (["weight-selection", source, "--source-heads=3", *TARGET], ["4 heads", "--source-heads"]),
        (["hydravit", source, "--depth=4"], ["only shrinks"]),
        (["wave", *network, *FEW, "--optim.batch=8", "--fit.batch=90"], ["72 training images", "--fit.batch 72"]),
        (["weight-selection", source, "--heads=9"], ["only shrinks", "9"]),
        (["weight-selection", source, "--depth=4"], ["only shrinks"]),
        (
            ["isomorphic-pruning", plain, "--importance=taylor", *TARGET, *FEW],
            ["no decoder", "--importance magnitude"],
        ),
        (
            ["isomorphic-pruning", judge, "--importance=taylor", *TARGET, *FEW],
            ["a bank without a decoder", "magnitude"],
        ),
        (["front", conv], ["front is for vision transformers", "ConvNext"]),
        (["isomorphic-pruning", source, "--batches=0", *TARGET], ["--batches 0"]),
        (["isomorphic-pruning", source, "--image=32", *TARGET], ["16 px", "--image"]),
        (["hydravit", tucker, *TARGET], ["no ordinary bank", "--constraint none"]),
        (["dmae", source, "--optim.batch=0"], ["--optim.batch 0"]),
        (["dmae", source, "--decoder.heads=5"], ["5 decoder heads"]),
        (["wave", plain, *network, *FEW, "--optim.batch=8", "--fit.batch=8"], ["no classifier"]),
        (["wave", teacher, *network, *FEW, "--optim.batch=8", "--fit.batch=8"], ["3 classes", "10"]),
        (
            ["wave", stranger, *network, *FEW, "--optim.batch=8", "--fit.batch=8"],
            ["are a, b, c …", "teacher for these"],
        ),
        (["tleg", tmp_path / "no.safetensors", *network], ["no.safetensors; give the path of a classifier, or none"]),
        (["tleg", "--model.depth=1"], ["weights of TLEG", "--model.depth 2"]),
        (["tleg", "--fit.steps=3", *network], ["TLEG follow from the depth", "leave it out"]),
        (["wave", "--parts=3", "--kronecker.tile", "4", "4", *network], ["--parts and --kronecker.tile"]),
        (
            ["wave", odd, "--heads=3", *network, *FEW, "--optim.batch=8", "--fit.batch=8"],
            ["heads of 60 channels", "--teacher-heads"],
        ),
        (
            ["wave", odd, "--teacher-heads=7", *network, *FEW, "--optim.batch=8", "--fit.batch=8"],
            ["7 heads do not divide 60"],
        ),
        (["isomorphic-pruning", source, "--no-norm-pix", *FEW], ["is a bank", "--no-norm-pix"]),
        (["isomorphic-pruning", plain, "--importance=magnitude", "--batches=3"], ["--batches is for Taylor"]),
        (["isomorphic-pruning", half, "--source-heads=3", *TARGET, *FEW], ["decoder", "--importance magnitude"]),
        (["dmae", uneven, "--depth=1", *FEW], ["18 channels are no multiple of 4 heads"]),
        (["scratch", "--model.width=100", "--heads=3"], ["100 channels is no multiple of 12 heads", "--heads"]),
        (["fine", *network, f"--data={unlabelled}"], ["unlabelled has 0 class(es)", "one folder a class"]),
        (["wave", "--depth=0", *network], ["--depth 0"]),
        (["wave", "--kronecker.tile", "999", "999", *network], ["999"]),
        (["wave", "--parts=0", *network], ["--parts asks for 0"]),
        (["wave", "--fit.batch=0", *network], ["--fit.batch 0"]),
        (["fine", "--svd.rank=99999", *network], ["99999"]),
        (["scratch", "--model.heads=0"], ["model.heads is 0"]),
        (["butterfly"], ["butterfly", "weight-selection"]),
        (["dmae", source, "--importance=taylor"], ["--importance"]),
    ):
        sentence = refused(capsys, lambda w=words: call(tmp_path, *w))
        for word in says:
            assert word in sentence, sentence
    monkeypatch.setenv("HOME", str(tmp_path))
    made = call(tmp_path, "isomorphic-pruning", "~/vit.safetensors", "--importance=magnitude", *TARGET)
    assert wt.load_model(made).model.config == dataclasses.replace(PLAIN, depth=2, heads=2)


@pytest.mark.parametrize("method", ["dmae", "isomorphic-pruning"])
def test_jobs_are_refused_where_there_are_no_images(method, tmp_path, source):
    """Before they are submitted; a method that needs none does not look."""
    lacking = baseline.method(method, source=str(source), data=DataOptions(str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match="nowhere"):
        baseline.check(lacking)
    lacking.check_options()
    if method == "isomorphic-pruning":
        baseline.check(dataclasses.replace(lacking, importance="magnitude", data=DataOptions()))
        plain = tmp_path / "plain.safetensors"
        convert.save_model(plain, vit(PLAIN), {})
        baseline.check(dataclasses.replace(lacking, source=str(plain)))


def test_what_a_teacher_cost_is_told_where_it_is_known(tmp_path, source, capsys):
    """By hand: 3 passes an image of what learns and 1 of the teacher, 2 steps of 8 images; a teacher that was fine-tuned
    from a bank had a pre-training besides, of unknown cost."""
    network = ["--model.image=16", "--model.heads=4", "--model.head-dim=4", "--model.depth=3"]
    few = [*FEW, "--optim.batch=8", "--optim.steps=2", f"--run.root={tmp_path}"]
    once = wt.count(wt.load_bank(source).config).flops
    told = {}
    for start in ("scratch", str(source)):
        words = [start, *few, *(network if start == "scratch" else [])]
        teacher = finetune.main(cli.parse(finetune.PRESETS, words))
        made = call(tmp_path, "tleg", teacher, *network, *few[:-1], *TARGET)
        told[start] = json.loads((made.parent / "summary.json").read_text())["cost"]
        assert told[start]["distillation_flops"] == 4 * once * 16
    assert told["scratch"]["source_flops"] == 3 * once * 16 + 4 * once * 16
    assert told[str(source)]["source_flops"] is None
    assert "source pre-training unknown, " in capsys.readouterr().out


def test_widths_that_were_not_trained_are_noted(tmp_path, capsys):
    """Under HydraViT, by what the bank says of its pre-training."""
    path = tmp_path / "bank.safetensors"
    about = {"scaling": "submodel", "widths": [2, 4], "coupled": True}
    wt.save_bank(path, wt.Bank(constrained_mae(ENHANCED, "none", key=jr.key(0)), "none", about))
    call(tmp_path, "hydravit", path, "--heads=2")
    assert "note:" not in capsys.readouterr().err
    call(tmp_path, "hydravit", path, "--heads=3")
    assert "at widths of 2 4 heads, not 3" in capsys.readouterr().err


def test_a_vit_b_is_cut_to_every_size_of_table_1():
    """Shapes alone, 86 million numbers being many; parameters with a head for 1000 classes, as the paper prints them."""
    big = wt.ViTConfig(image=224, patch=16, depth=12, heads=12, head_dim=64, dress="plain")
    skeleton = eqx.filter_eval_shape(wt.ViT, big, key=jr.key(0))
    for depth, heads, millions in ((3, 12, 22.8), (6, 12, 44.0), (6, 6, 11.4), (12, 6, 22.1), (12, 3, 5.7)):
        target = big.resized(depth=depth, heads=heads)
        fresh = eqx.filter_eval_shape(wt.ViT, target, key=jr.key(0))
        made = eqx.filter_eval_shape(selection.select_weights, skeleton, target)
        assert trees.mismatch(fresh, trees.named_arrays(made)) is None
        total = trees.count(made) + (target.channels + 1) * 1000
        assert round(total / 1e6, 1) == millions
        assert total == {(12, 6): 22_050_664, (12, 3): 5_717_416}.get((depth, heads), total)


def test_dmae_has_the_rates_of_its_authors():
    """1.5e-4 x 4096 / 256 after a fifth of the steps, then down to zero."""
    optim = dataclasses.replace(baseline.method("dmae").optim, batch=4096)
    schedule = training.schedule_of(optim, 1000)
    assert optim.epochs == 100
    assert max(float(schedule(step)) for step in range(1000)) == pytest.approx(2.4e-3, rel=1e-5)
    assert float(schedule(199)) == pytest.approx(2.4e-3, rel=6e-3)
    assert float(schedule(100)) == pytest.approx(1.2e-3, rel=2e-2)


@pytest.mark.large
def test_a_vit_b_by_file_is_a_source_of_every_size(tmp_path):
    """A file with timm's names and ViT-B's shapes, cut by two methods to the five sizes of Table 1."""
    big = wt.ViTConfig(image=224, patch=16, depth=12, heads=12, head_dim=64, dress="plain")
    path = tmp_path / "vit_base.safetensors"
    convert.export_model(path, eqx.filter_jit(wt.ViT)(big, key=jr.key(0)), "timm", {})
    with safe_open(path, "numpy") as file:
        assert file.get_tensor("blocks.11.attn.qkv.weight").shape == (2304, 768)
        source = file.get_tensor("blocks.1.mlp.fc1.weight")
    for depth, heads, millions in ((3, 12, 22.8), (6, 12, 44.0), (6, 6, 11.4), (12, 6, 22.1), (12, 3, 5.7)):
        size = [f"--depth={depth}", f"--heads={heads}"]
        for method in ("weight-selection", "isomorphic-pruning"):
            model = wt.load_model(call(tmp_path, method, path, *size)).model
            assert model.config == big.resized(depth=depth, heads=heads)
            assert round((trees.count(model) + (64 * heads + 1) * 1000) / 1e6, 1) == millions
            if method == "weight-selection":
                step = 12 // heads
                found = np.asarray(model.blocks.mlp.enter)[1].reshape(-1, 64 * heads)
                np.testing.assert_array_equal(found, source[::step, ::step])


def test_models_of_timm_are_sources(tmp_path, capsys):
    path = tmp_path / "timm.safetensors"
    model = vit(PLAIN)
    convert.export_model(path, model, "timm", {})
    made = call(tmp_path, "weight-selection", path, "--source-heads=4", *TARGET)
    expected = selection.select_weights(model, PLAIN.resized(depth=2, heads=2))
    for name, array in trees.named_arrays(wt.load_model(made).model).items():
        np.testing.assert_allclose(array, trees.named_arrays(expected)[name], atol=1e-7, err_msg=name)
    pruned = call(tmp_path, "isomorphic-pruning", path, "--source-heads=4", *TARGET)
    assert "timm.safetensors has no decoder" in capsys.readouterr().err
    expected = pruning.prune(model, PLAIN.resized(depth=2, heads=2), pruning.magnitude)
    for name, array in trees.named_arrays(wt.load_model(pruned).model).items():
        np.testing.assert_allclose(array, trees.named_arrays(expected)[name], atol=1e-7, err_msg=name)
    judge = tmp_path / "judge.safetensors"  # a bank has no decoder either if it was trained to classify
    wt.save_bank(judge, wt.Bank(judging(), "none", {}))
    pruned = call(tmp_path, "isomorphic-pruning", judge, *TARGET)
    assert "judge.safetensors has no decoder" in capsys.readouterr().err
    expected = pruning.prune(wt.expand(judging().backbone), ENHANCED.resized(depth=2, heads=2), pruning.magnitude)
    for name, array in trees.named_arrays(wt.load_model(pruned).model).items():
        np.testing.assert_allclose(array, trees.named_arrays(expected)[name], atol=1e-7, err_msg=name)


def test_auto_encoders_of_others_are_scored_by_their_loss(tmp_path):
    """The golden one of transformers: what the command prunes is what its loss on the same images says."""
    folder = GOLDEN / "huggingface-mae"
    size = ["--depth=1", "--heads=2", "--batches=2", "--data.count=40"]
    made = wt.load_model(call(tmp_path, "isomorphic-pruning", folder, *size)).model
    mae = convert.load_mae(folder)
    shape = mae.backbone.config
    loaded = data.load(data.open_source(DataOptions(count=40), 32, 0), DataOptions(count=40), lambda text: None)
    chosen = data.split(loaded.good, 36, 0)
    views = [
        np.stack([data.evaluation_view(loaded.image(int(i)), 32) for i in chosen.indices(step)]) for step in range(2)
    ]
    scores = pruning.taylor(mae, views, key=jr.key(0))
    expected = pruning.prune(mae.backbone, shape.resized(1, 2), scores)
    assert eqx.tree_equal(made, expected)
    by_size = pruning.prune(mae.backbone, shape.resized(1, 2), pruning.magnitude)
    assert not eqx.tree_equal(made, by_size)
