"""From a bank to a classifier: the commands that initialise, adapt, fine-tune and export, and their mistakes."""

import json
import signal
import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from PIL import Image

import weight_templates as wt
from experiments import adapt, export, finetune, initialize, pretrain
from weight_templates import cli, data, inherit, launch, trees
from weight_templates.config import DataOptions
from weight_templates.files import read_safetensors, write_safetensors
from weight_templates.training import read_metrics

from .helpers import ENHANCED, image_folder, jpeg, mae, parquet, refused
from .test_pretrain import NEVER, SMALL, interrupted


COMMANDS = {"adapt": adapt, "export": export, "finetune": finetune, "initialize": initialize}


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """The path of a bank of 2 layers, 4 heads of 4 channels, 16 px."""
    root = tmp_path_factory.mktemp("bank")
    return pretrain.main(cli.parse(pretrain.PRESETS, [*SMALL, "--optim.steps=2", f"--run.root={root}"]))


def call(command, *words):
    module = COMMANDS[command]
    return module.main(cli.parse(getattr(module, "PRESETS", {"default": module.Config()}), [str(w) for w in words]))


def mistaken(capsys, command, *words):
    return refused(capsys, lambda: call(command, *words))


TINY = ["--data.count=80", "--optim.batch=8", "--optim.epochs=2"]
SCRATCH = ["--model.image=16", "--model.heads=4", "--model.head-dim=4", "--depth=1", *TINY]


def test_full_fine_tuning_from_a_bank(tmp_path, bank, capsys):
    words = (bank, "--depth=1", "--heads=2", *TINY, f"--run.root={tmp_path}", "--run.log-every=3")
    recipe = [
        f"--recipe.{w}"
        for w in ("layer-decay=0.7", "drop-path=0.1", "mixup=0.8", "cutmix=1", "erasing=0.3", "randaugment=9")
    ]
    path = call("finetune", *words, *recipe)
    heard = capsys.readouterr()
    assert "top-1" in heard.out
    summary = json.loads((path.parent / "summary.json").read_text())
    metrics = [line for line in read_metrics(path.parent) if "held_out_top1" in line]
    assert [line["epoch"] for line in metrics] == [1, 2]
    best = max(metrics, key=lambda line: line["held_out_top1"])
    assert summary["best_epoch"] == best["epoch"]
    assert summary["held_out"]["top1"] == pytest.approx(best["held_out_top1"])
    assert summary["held_out"]["images"] == 8
    assert summary["test"]["images"] == 80
    found = wt.load_model(path)
    assert (found.model.backbone.config.depth, found.model.backbone.config.heads) == (1, 2)
    assert found.about["classes"] == list(data.synthetic.SHAPES)
    assert summary["parameters"] == summary["trained"] == trees.count(found.model)
    # The test accuracy once more, image by image, from the file.
    source = data.test_source(DataOptions(count=80), None, 16, 0)
    logits = jax.vmap(found.model)(data.normalize(jnp.stack([jnp.asarray(source.image(i)) for i in range(80)])))
    hits = [int(jnp.argmax(row)) == source.label(i) for i, row in enumerate(logits)]
    assert summary["test"]["top1"] == pytest.approx(np.mean(hits))
    with Image.open(path.parent / "accuracy.png") as image:
        assert min(image.size) > 300
    assert call("finetune", *words, *recipe) == path
    assert "finished already" in capsys.readouterr().err


def test_probes_train_the_head_alone_and_fold_its_statistics(tmp_path, bank):
    path = call("finetune", bank, "--mode=probe", "--depth=1", "--heads=3", *TINY, f"--run.root={tmp_path}")
    found = wt.load_model(path).model
    expected = trees.named_arrays(wt.initialize(wt.load_bank(bank), 1, 3))
    for name, leaf in trees.named_arrays(found.backbone).items():
        np.testing.assert_array_equal(leaf, expected[name])
    summary = json.loads((path.parent / "summary.json").read_text())
    assert summary["trained"] == 12 * 10 + 10
    best = max(line["held_out_top1"] for line in read_metrics(path.parent) if "held_out_top1" in line)
    assert summary["held_out"]["top1"] == pytest.approx(best)  # on raw features what was judged on standard ones


def test_a_probed_head_starts_where_the_probe_ended(tmp_path, bank):
    """With a learning rate of nearly nothing, fine-tuning is the probe; and the probe is the one of the same flags."""
    words = [bank, "--depth=1", "--heads=2", "--data.count=60", "--optim.batch=8", f"--run.root={tmp_path}"]
    tuned = call("finetune", *words, "--head=probe", "--optim.steps=1", "--optim.base-lr=1e-12")
    (probe,) = tmp_path.glob("finetune/probe-*/model.safetensors")
    one, other = (trees.named_arrays(wt.load_model(path).model) for path in (probe, tuned))
    for name, array in one.items():
        np.testing.assert_allclose(array, other[name], atol=1e-6, err_msg=name)
    again = call("finetune", *words[:4], "--mode=probe", "--optim.batch=8", "--optim.epochs=50", "--optim.base-lr=4e-3",
                 "--optim.weight-decay=0", f"--run.root={tmp_path}")  # fmt: skip
    assert again == probe


def test_a_width_that_is_no_multiple_of_the_heads_is_trained_as_it_is():
    """Unless heads are asked for, which then have no width."""
    words = ["scratch", "--model.image=16", "--model.heads=4", "--model.head-dim=4", "--model.width=18"]
    vit, _ = finetune.backbone_of(cli.parse(finetune.PRESETS, [*words, "--depth=2"]))
    assert (vit.config.depth, vit.config.channels, vit.embed.weight.shape[0]) == (2, 18, 18)
    with pytest.raises(wt.UserError, match="18 channels is no multiple of 4 heads"):
        finetune.backbone_of(cli.parse(finetune.PRESETS, [*words, "--heads=3"]))


def test_models_and_scratch_are_starts_too(tmp_path, bank, rng):
    made = call("initialize", bank, "--depth=3", "--heads=5", "--out", tmp_path / "vit.safetensors")
    vit = wt.load_model(made).model
    assert (vit.config.depth, vit.config.heads, vit.config.channels) == (3, 5, 20)
    folder = image_folder(tmp_path / "images", rng, count=12)
    (folder / "train").rename(folder / "all")
    words = [f"--data={folder / 'all'}", "--optim.batch=4", "--optim.epochs=1", f"--run.root={tmp_path}"]
    path = call("finetune", made, *words, "--image=24", "--pool=cls")
    found = wt.load_model(path).model
    assert (found.backbone.config.image, found.pool, len(found.head.bias)) == (24, "cls", 2)
    assert json.loads((path.parent / "summary.json").read_text())["test"] is None
    again = call("finetune", path, *words)  # its head is made anew
    assert wt.load_model(again).model.backbone.config.image == 24
    scratch = call("finetune", "scratch", *SCRATCH, "--model.dress=plain", f"--run.root={tmp_path}")
    out = call("export", scratch, "--format=timm", "--out", tmp_path / "timm.safetensors")
    back = wt.load_model(out, heads=4)
    image = jr.normal(jr.key(0), (16, 16, 3))
    np.testing.assert_allclose(back.model(image), wt.load_model(scratch).model(image), atol=1e-6)


@pytest.mark.large
def test_an_interrupted_fine_tune_ends_as_if_it_had_not_been(tmp_path):
    command = [sys.executable, "experiments/finetune.py", "scratch", *SCRATCH, "--data.count=240", "--optim.epochs=4",
               "--recipe.mixup=0.5", "--run.log-every=3", "--run.save-every=7", "--run.out"]  # fmt: skip
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert interrupted([*command, str(straight)], straight / "metrics.jsonl", NEVER, 0) == 0
    assert interrupted([*command, str(killed)], killed / "metrics.jsonl", 7, signal.SIGKILL) == -signal.SIGKILL
    code = interrupted([*command, str(killed)], killed / "metrics.jsonl", 16, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert interrupted([*command, str(killed)], killed / "metrics.jsonl", NEVER, 0) == 0
    assert len(json.loads((killed / "environment.json").read_text())) == 3
    for name in ("metrics.jsonl", "summary.json", "model.safetensors", "checkpoints/best.safetensors"):
        assert (straight / name).read_bytes() == (killed / name).read_bytes(), name


@pytest.mark.parametrize("scalers", ["inherited", "random"])
def test_adaptation_trains_the_scalers_and_nothing_else(tmp_path, bank, scalers, capsys):
    words = (bank, "--depth=1", "--heads=3", f"--scalers={scalers}", "--data.count=100", "--optim.batch=8")
    path = call("adapt", *words, "--optim.steps=4", "--optim.weight-decay=0.5", f"--run.root={tmp_path}")
    source, found = wt.load_bank(bank), wt.load_bank(path)
    assert (found.config.depth, found.config.heads, found.source) == (1, 3, source.config)
    before, after = source.model.backbone, found.model.backbone
    np.testing.assert_array_equal(before.templates["all"]["core"], after.templates["all"]["core"])
    inherited = wt.resize(before, 1, 3)
    for name, leaf in inherited.scalers["all"].items():
        assert leaf.shape == after.scalers["all"][name].shape
        assert not np.array_equal(leaf, after.scalers["all"][name])
    for name, leaf in trees.named_arrays(inherited.free).items():
        np.testing.assert_array_equal(leaf, trees.named_arrays(after.free)[name])
    np.testing.assert_array_equal(found.model.decoder.mask_token, source.model.decoder.mask_token)
    summary = json.loads((path.parent / "summary.json").read_text())
    assert summary["cost"]["trained"] == trees.count(after.scalers)
    # Twice the steps of half the network: the encoder's share shrinks by a half and its width, the decoder's not at all.
    assert 0.5 < summary["cost"]["of_pretraining"] < 2
    assert f"trained {summary['cost']['trained']:,} numbers" in capsys.readouterr().out
    plain, model = wt.expand(after), wt.load_model(path.parent / "model.safetensors").model
    image = jr.normal(jr.key(0), (16, 16, 3))
    np.testing.assert_allclose(plain(image), model(image), atol=1e-5)
    assert found.about["pretraining"] == source.about
    smaller = call("initialize", path, "--heads=2", "--out", tmp_path / "smaller.safetensors")
    assert wt.load_model(smaller).model.config.heads == 2


def test_convolutional_classifiers_go_the_same_ways(tmp_path, capsys):
    """Pre-trained to classify, adapted, initialised larger, fine-tuned with layer decay and stochastic depth, probed."""
    network = ["--backbone=convnext", "--model.image=16", "--model.heads=4", "--model.head-dim=4", "--model.kernel=3"]
    few = ["--data.count=60", "--optim.batch=8", "--optim.steps=2", f"--run.root={tmp_path}"]
    learn = [*network, "--model.depth=2", "--task=classify", *few]
    path = pretrain.main(cli.parse(pretrain.PRESETS, learn))
    summary = json.loads((path.parent / "summary.json").read_text())
    assert set(summary["held_out_top1"]) == set(summary["held_out_top5"]) == {"1", "2", "3", "4"}
    for picture in ("accuracy.png", "predictions.png"):
        with Image.open(path.parent / picture) as image:
            assert min(image.size) > 200
    source = wt.load_bank(path)
    assert (source.task, type(source.config)) == ("classify", wt.ConvNextConfig)
    assert source.about["classes"] == list(data.synthetic.SHAPES)

    adapted = call("adapt", path, "--depth=1", "--heads=2", *few)
    found = wt.load_bank(adapted)
    for name, leaf in trees.named_arrays(inherit.adaptable(source, 1, 2)).items():
        learned = name.startswith("backbone.scalers.")
        assert np.array_equal(leaf, trees.named_arrays(found.model)[name]) != learned, name
    assert found.about["pretraining"] == source.about
    larger = call("initialize", path, "--depth=3", "--heads=5", "--out", tmp_path / "larger.safetensors")
    assert wt.load_model(larger).model.config.channels == 20

    tuned = call("finetune", adapted, "--recipe.layer-decay=0.7", "--recipe.drop-path=0.1", *few)
    model = wt.load_model(tuned).model
    assert (type(model.backbone), model.backbone.config.depth, len(model.head.bias)) == (wt.ConvNext, 1, 10)
    probed = wt.load_model(call("finetune", adapted, "--mode=probe", *few)).model
    expected = trees.named_arrays(wt.initialize(found))
    for name, leaf in trees.named_arrays(probed.backbone).items():
        np.testing.assert_array_equal(leaf, expected[name])
    for words in (["finetune", "scratch", *network, "--pool=cls", *few], ["finetune", larger, "--pool=cls", *few]):
        assert "--pool cls is for vision transformers" in mistaken(capsys, *words)


def test_adaptation_lowers_the_loss(tmp_path, bank):
    words = (bank, "--depth=2", "--heads=2", "--also=head", "--data.count=100", "--optim.batch=16")
    path = call(
        "adapt",
        *words,
        "--optim.steps=40",
        "--optim.base-lr=0.05",
        "--run.save-every=1",
        "--run.log-every=20",
        f"--run.root={tmp_path}",
    )
    losses = [line["held_out_loss"] for line in read_metrics(path.parent) if "held_out_loss" in line]
    assert losses[-1] < losses[0] - 0.02


def changed(path, out, change):
    """The file with some of its tensors changed; None drops one."""
    arrays, header = read_safetensors(path, "")
    write_safetensors(out, {k: v for k, v in (arrays | change).items() if v is not None}, header)
    return out


def test_mistakes_get_one_sentence(tmp_path, bank, capsys, rng):
    root = f"--run.root={tmp_path / 'runs'}"
    out = f"--out={tmp_path / 'vit.safetensors'}"
    vit = call("initialize", bank, out)
    sound = vit.read_bytes()
    tleg = tmp_path / "tleg.safetensors"
    auto = mae(ENHANCED, wt.Linear(tleg=True), "components", key=jr.key(0))
    wt.save_bank(tleg, wt.Bank(auto, "linear", {}))
    cases = [
        (["initialize", bank, out], ["vit.safetensors", "exists", "--overwrite"]),
        (["initialize", bank], ["--out"]),
        (["initialize", out], ["no bank"]),
        (["initialize", vit, f"--out={tmp_path / 'x'}"], ["weight-templates bank 3"]),
        (["initialize", bank, f"--out={tmp_path / 'x'}", "--depth=0"], ["--depth 0"]),
        (["initialize", bank, f"--out={tmp_path / 'x'}", "--heads=-1"], ["--heads -1"]),
        (["initialize", bank, f"--out={tmp_path / 'x'}", "--layers=last"], ["last", "first"]),
        (["initialize", bank, f"--out={tmp_path / 'x'}", "--layout=components"], ["has layout unified, not components"]),
        (["initialize", bank, f"--out={tmp_path / 'x'}", "--format=timm"], ["enhanced", "safetensors"]),
        (["export", f"--out={tmp_path / 'x'}"], ["no model"]),
        (["export", vit], ["--out"]),
        (["export", "/nowhere", f"--out={tmp_path / 'x'}"], ["/nowhere"]),
        (["adapt"], ["no bank"]),
        (["adapt", bank, "--layout=components", root], ["has layout unified, not components"]),
        (["adapt", bank, "--heads=0", root], ["--heads 0"]),
        (["adapt", tleg, root], ["follow from the depth", "initialize.py"]),
        (["adapt", bank, "--optim.batch=0", root], ["--optim.batch"]),
        (["finetune", "/nowhere", root], ["/nowhere", "scratch"]),
        (["finetune", bank, "--model.depth=3", root], ["--model"]),
        (["finetune", vit, "--depth=3", root], ["--depth"]),
        (["finetune", bank, "--depth=0", root], ["--depth 0"]),
        (["finetune", "scratch", "--heads=0", root], ["heads"]),
        (["finetune", bank, "--image=18", root], ["18"]),
        (["finetune", bank, "--mode=probe", "--recipe.mixup=1", root], ["probe", "--recipe"]),
        (["finetune", bank, "--mode=probe", "--head=probe", root], ["--head probe is for --mode full"]),
        (["finetune", bank, "--recipe.drop-path=1", root], ["drop-path"]),
        (["finetune", bank, "--recipe.layer-decay=0", root], ["layer-decay"]),
        (["finetune", bank, "--recipe.randaugment=11", root], ["randaugment"]),
        (["finetune", bank, "--recipe.mixup=-1", root], ["mixup"]),
        (["finetune", bank, "--data=/no/such", root], ["/no/such"]),
        (["finetune", bank, "--test=nothing", f"--data={image_folder(tmp_path / 'im', rng)}", "--optim.batch=4", root],
         ["nothing"]),
    ]  # fmt: skip
    for words, says in cases:
        sentence = mistaken(capsys, *words)
        for part in says:
            assert part in sentence, (words, sentence)
    assert vit.read_bytes() == sound
    assert not (tmp_path / "runs").exists()  # nothing is left behind
    assert not (tmp_path / "x").exists()
    call("initialize", bank, out, "--depth=1", "--overwrite")
    assert wt.load_model(vit).model.config.depth == 1


def test_tensors_that_are_missing_or_too_many_are_named(tmp_path, bank, capsys):
    vit = call("initialize", bank, f"--out={tmp_path / 'vit.safetensors'}")
    for change, name in (
        ({"blocks.attention.out": None}, "blocks.attention.out is missing"),
        ({"blocks.more": np.zeros(3, np.float32)}, "blocks.more is not expected"),
        ({"cls": np.zeros(3, np.float32)}, "cls has shape (3,) instead of (16,)"),
    ):
        broken = changed(vit, tmp_path / "broken.safetensors", change)
        assert name in mistaken(capsys, "finetune", broken, f"--run.root={tmp_path}")
        assert name in mistaken(capsys, "export", broken, f"--out={tmp_path / 'x'}")
    broken = changed(bank, tmp_path / "bank.safetensors", {"backbone.templates.all.core": None})
    assert "templates.all.core is missing" in mistaken(capsys, "adapt", broken, f"--run.root={tmp_path}")


def test_labels_that_will_not_do_are_named(tmp_path, bank, capsys, rng):
    root = f"--run.root={tmp_path / 'runs'}"
    contents = [jpeg(rng, 16, 16) for _ in range(40)]
    good = [i % 4 for i in range(40)]
    (tmp_path / "set").mkdir()
    parquet(tmp_path / "set" / "train.parquet", contents, good, ["a", "b", "c"])
    words = (bank, f"--data={tmp_path / 'set'}", "--optim.batch=4", "--optim.epochs=1", root)
    sentence = mistaken(capsys, "finetune", *words)
    assert "label 3, but there are 3 classes" in sentence
    assert "[3]" in sentence
    parquet(tmp_path / "set" / "train.parquet", contents, good, ["a", "b", "c", "d"])
    parquet(tmp_path / "set" / "test.parquet", contents, [7, *good[1:]], ["a", "b", "c", "d"])
    assert "label 7" in mistaken(capsys, "finetune", *words)
    parquet(tmp_path / "set" / "train.parquet", contents, [None, *good[1:]], ["a", "b", "c", "d"])
    assert "has no label" in mistaken(capsys, "finetune", *words)
    image_folder(tmp_path / "named", rng, classes=("a", "b"))
    image_folder(tmp_path / "named" / "more", rng, classes=("b", "c"), count=1)
    (tmp_path / "named" / "more" / "train").rename(tmp_path / "named" / "val")
    sentence = mistaken(capsys, "finetune", bank, f"--data={tmp_path / 'named'}", "--optim.batch=4", root)
    assert "'c', which no training image can have" in sentence
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, content in enumerate(contents):
        (flat / f"{i}.jpg").write_bytes(content)
    assert "one folder a class" in mistaken(capsys, "finetune", bank, f"--data={flat}", "--optim.batch=4", root)
    assert not (tmp_path / "runs").exists()


def test_classes_of_another_split_go_by_their_names(tmp_path, rng):
    """A test split that shows fewer classes numbers its own from 0; they are still those of the training images."""
    image_folder(tmp_path, rng, classes=("a", "b", "c"), count=2)
    image_folder(tmp_path / "more", rng, classes=("b", "c"), count=2)
    (tmp_path / "more" / "train").rename(tmp_path / "test")
    options = DataOptions(str(tmp_path))
    test = data.load(data.test_source(options, None, 16, 0), options, print)
    assert test.source.classes == ("b", "c")
    np.testing.assert_array_equal(data.labels_of(test, test.good, ("a", "b", "c")), [1, 1, 2, 2])


def test_presets_are_the_recipes_they_name():
    mae, deit = finetune.PRESETS["mae"], finetune.PRESETS["deit"]
    assert (mae.recipe.layer_decay, mae.recipe.drop_path, mae.recipe.mixup, mae.recipe.cutmix) == (0.65, 0.1, 0.8, 1.0)
    assert (mae.recipe.erasing, mae.recipe.randaugment, mae.recipe.smoothing) == (0.25, 9, 0.1)
    assert mae.optim.base_lr * mae.optim.batch / 256 == pytest.approx(5e-4 * 4)  # MAE's rule: blr x batch / 256
    assert deit.optim.base_lr * deit.optim.batch / 256 == pytest.approx(5e-4 * 1024 / 512)  # DeiT's
    for name, config in finetune.PRESETS.items():
        assert config.preset == name
        config.recipe.check()
        config.optim.check()
        config.model.check()


def test_small_images_are_enlarged_whole_to_be_judged():
    image = np.zeros((8, 8, 3), np.uint8)
    image[0] = 255
    seen = data.evaluation_view(image, 16)
    assert seen.shape == (16, 16, 3)
    assert seen[0].min() > 200  # the border is still there


def test_the_grid_of_sizes_is_tabulated(tmp_path, bank, monkeypatch):
    from figures import records

    from ablations import sizes
    from ablations.protocol import Protocol

    monkeypatch.setattr(records, "RECORDS", tmp_path)
    monkeypatch.setattr(records, "RESULTS", tmp_path / "docs")
    launch.sweep(sizes, sizes.Config(
        bank=str(bank), data=("synthetic",), depths=(1,), heads=(2,),
        protocol=Protocol(count=60, epochs=2, batch=8), adapt="synthetic", adapt_steps=2, root=str(tmp_path),
    ))  # fmt: skip
    page = (tmp_path / "docs" / "sizes.md").read_text()
    assert "--adapt synthetic --adapt-steps 2 --depths 1 --heads 2 --count 60 --epochs 2" in page
    assert "for 2 steps of 128" in page
    assert len(list(tmp_path.glob("adapt/*L1H2*/summary.json"))) == 1
    assert str(tmp_path) not in page
    assert page.count("\n| 1 | 2 | ") == 1
    for name in ("parameters", "curves"):
        with Image.open(tmp_path / "docs" / f"sizes-synthetic-{name}.png") as image:
            assert min(image.size) > 200


def test_convergence_by_hand():
    from figures.sizes import convergence

    scratch = [[1, 0.1], [2, 0.2], [4, 0.3]]
    assert convergence([[1, 0.2], [2, 0.4]], scratch) == pytest.approx(1.5 / 4)
    assert convergence([[1, 0.5]], scratch) == 0.25
    assert convergence([[4, 0.2]], scratch) is None
    assert convergence([[0, 0.3], [1, 0.2]], scratch) == 0
