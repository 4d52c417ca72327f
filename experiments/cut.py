"""The backbones that are cut from a source without training: how `experiments/baseline.py` has them made.

What a method takes is in `weight_templates.baselines`; here are the sources that it can take from, and what is refused.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

from weight_templates import cli
from weight_templates.config import ViTConfig
from weight_templates.errors import NoDecoderError, UserError


if TYPE_CHECKING:
    from experiments.baseline import Cut, Front, HydraViT, IsomorphicPruning, WeightSelection


@dataclasses.dataclass(frozen=True)
class Source:
    """What a method takes from."""

    vit: Any
    """The plain backbone."""
    bank: Any | None
    """The bank it is from, which has a decoder too."""
    about: dict[str, Any]


def open_source(config: "Cut") -> Source:
    """Reads a bank or a model; raises UserError where it is neither."""
    import equinox as eqx

    import weight_templates as wt
    from weight_templates import convert
    from weight_templates.models import ViT

    if wt.is_bank(config.source):
        bank = wt.load_bank(config.source)
        if config.source_heads not in (None, bank.config.heads):
            raise UserError(f"{config.source} has {bank.config.heads} heads; leave out --source-heads.")
        vit, about = eqx.filter_jit(wt.expand)(bank.model.encoder), bank.about
    else:
        loaded = wt.load_model(config.source, heads=config.source_heads)
        vit, about, bank = loaded.model if isinstance(loaded.model, ViT) else loaded.model.backbone, loaded.about, None
    return Source(vit if config.image is None else convert.at_resolution(vit, config.image), bank, about)


def weight_selection(
    config: "WeightSelection", source: Source, target: ViTConfig, run: Any
) -> tuple[Any, dict[str, Any]]:
    """See `weight_templates.baselines.selection`."""
    from weight_templates.baselines import selection

    rotary = source.vit.config.dress == "enhanced"
    return selection.select_weights(source.vit, target, config.select_heads or ("whole" if rotary else "strided")), {}


def front(config: "Front", source: Source, target: ViTConfig, run: Any) -> tuple[Any, dict[str, Any]]:
    """See `weight_templates.baselines.spectral`."""
    from weight_templates.baselines import spectral

    return spectral.truncate_spectrum(source.vit, target), {}


def hydravit(config: "HydraViT", source: Source, target: ViTConfig, run: Any) -> tuple[Any, dict[str, Any]]:
    """The prefix of an unconstrained bank (HydraViT, arXiv 2409.17978): its first layers, heads and residual channels.

    Widths that were not drawn in pre-training are noted. Prefixes of the depth never are drawn: HydraViT has one depth.
    """
    import weight_templates as wt
    from weight_templates import convert

    assert source.bank  # as `check_nested` has it
    drawn = source.bank.about.get("widths")
    if drawn and target.heads not in drawn:
        cli.say(
            f"note: {config.source} was pre-trained at widths of {' '.join(map(str, drawn))} heads, not {target.heads}."
        )
    return convert.at_resolution(wt.initialize(source.bank, target.depth, target.heads), target.image), {}


def check_nested(config: "HydraViT", source: Source) -> None:
    """Raises UserError where a source is no ordinary bank whose prefixes were trained."""
    bank = source.bank
    if bank is None or bank.family != "none" or bank.about.get("scaling") != "submodel":
        raise UserError(
            f"{config.source} is no ordinary bank that was pre-trained with random widths; make one with `python "
            "experiments/pretrain.py --constraint none --scaling.scope submodel --scaling.coupled`."
        )


def check_scores(config: "IsomorphicPruning") -> None:
    """Raises UserError for options of scores that are out of range, or change nothing."""
    if config.batches < 1:
        raise UserError(f"--batches {config.batches} is not positive.")
    given = [name for name in ("batches", "data", "norm_pix") if getattr(config, name) != getattr(type(config)(), name)]
    if config.importance == "magnitude" and given:
        flag = "--" + given[0].replace("_", "-")
        raise UserError(f"{flag} is for Taylor scores; leave it out, or --importance magnitude.")


def auto_encoder_of(config: "IsomorphicPruning", source: Source) -> Any:
    """The auto-encoder whose loss gives the scores, or None where they are magnitudes; raises UserError where a loss is asked
    for and the source has no decoder."""
    from weight_templates import convert

    if config.importance == "magnitude":
        return None
    if source.bank is not None:
        if not config.norm_pix:
            raise UserError(f"{config.source} is a bank, which tells of its pixels; leave out --no-norm-pix.")
        return source.bank.model
    try:
        return convert.load_mae(config.source, heads=config.source_heads, norm_pix=config.norm_pix)
    except UserError as error:
        if isinstance(error, NoDecoderError) and config.importance is None:
            return None
        raise UserError(f"{str(error).rstrip('.')}; or say --importance magnitude.") from None


def isomorphic_pruning(
    config: "IsomorphicPruning", source: Source, target: ViTConfig, run: Any
) -> tuple[Any, dict[str, Any]]:
    """See `weight_templates.baselines.pruning`."""
    import jax.random as jr

    from weight_templates import data
    from weight_templates.baselines import pruning

    mae = auto_encoder_of(config, source)
    if mae is None:
        if config.importance is None:
            cli.say(f"note: {config.source} has no decoder, so its parts are scored by magnitude and not by a loss.")
        return pruning.prune(source.vit, target, pruning.magnitude), {}
    if config.image not in (None, mae.encoder.config.image):
        raise UserError(
            f"the decoder of {config.source} is for {mae.encoder.config.image} px; leave out --image, which finetune.py "
            "takes too, or say --importance magnitude."
        )
    image = source.vit.config.image
    loaded = data.load(data.open_source(config.data, image, config.seed), config.data, cli.say)
    size = min(pruning.BATCH, max(1, int(0.9 * len(loaded.good))))  # a part is held out
    chosen = data.split(loaded.good, size, config.seed)
    views = [data.evaluation_views(loaded, chosen.indices(step), image) for step in range(config.batches)]
    scores = pruning.taylor(mae, views, key=jr.key(config.seed))
    flops = config.batches * size * flops_of_look(mae, target)
    return pruning.prune(source.vit, target, scores), {"size_flops": flops}


def flops_of_look(mae: Any, target: ViTConfig) -> float:
    """FLOPs of the gradients of an image in isomorphic pruning: of the source, and where layers go, of those that stay."""
    from weight_templates.counting import count_mae

    shape = mae.encoder.config
    return sum(3 * count_mae(shape.resized(depth), mae.config) for depth in {shape.depth, target.depth})
