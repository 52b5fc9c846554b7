"""The network between sites against the model's own forward."""

import pytest
import torch

from edgesweep.engine.dictionaries.base import Identity
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.network.architectures import ARCHITECTURES
from edgesweep.engine.network.base import SiteError
from tests.features.made import CHAIN, MIXED, WITHIN
from tests.tiny import FAMILIES, model_and_batch

EVERY = tuple(f"{kind}{layer}" for layer in range(3) for kind in ("attn", "mlp", "resid"))
LAST = ("attn2", "mlp1")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("sites", [CHAIN, MIXED, WITHIN, EVERY, LAST, ()], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_segments_of_clean_values_are_the_models_run(family, sites, side):
    model, batch = model_and_batch(family, side=side)
    features = FeatureModel(model, {site: Identity(model.sites.width(site)) for site in sites})
    inputs = model.prepare(batch.clean, batch.real)
    values = features.site_values(model.run(inputs))
    assert list(values) == [site.name for site in features.sites]
    for name in list(values)[1:]:
        found = features.segment(name, values, inputs)
        scale = values[name][batch.real].abs().max()
        assert (found - values[name])[batch.real].abs().max() <= 1e-5 * scale, name
    logits = model.hf(
        batch.clean,
        attention_mask=batch.real.long(),
        position_ids=(batch.real.long().cumsum(-1) - 1).clamp(min=0),
        use_cache=False,
    ).logits[torch.arange(len(batch)), inputs.read]
    found = features.segment("logits", values, inputs)
    assert (found - logits).abs().max() <= 1e-5 * logits.abs().max()


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gemma2"])
@torch.no_grad()
def test_rows_choose_inputs(family):
    model, batch = model_and_batch(family)
    features = FeatureModel(model, {s: Identity(model.d_model) for s in MIXED})
    inputs = model.prepare(batch.clean, batch.real)
    values = features.site_values(model.run(inputs))
    rows = torch.tensor([2, 0, 2, 1])
    picked = {name: value[rows] for name, value in values.items()}
    for name in ("attn1", "mlp2", "logits"):
        whole = features.segment(name, values, inputs)[rows]
        found = features.segment(name, picked, inputs, rows)
        real = slice(None) if name == "logits" else batch.real[rows]
        assert (found - whole)[real].abs().max() <= 1e-5 * whole[real].abs().max()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_what_is_within_a_block_is_what_its_output_map_reads(family):
    model, batch = model_and_batch(family)
    arch, read = ARCHITECTURES[model.hf.config.model_type], {}
    stack = model.hf.get_submodule(arch.stack)
    for layer, module in enumerate(getattr(stack, arch.layers)):
        maps = {
            f"attn{layer}.z": f"{arch.attention}.{arch.output}",
            f"mlp{layer}.hidden": f"{arch.mlp}.{arch.mlp_output}",
        }
        for name, path in maps.items():
            module.get_submodule(path).register_forward_pre_hook(
                lambda _, given, name=name: read.update({name: given[0]})
            )
    inputs = model.prepare(batch.clean, batch.real)
    features = FeatureModel(model, {n: Identity(model.sites.width(n)) for n in WITHIN if "." in n})
    values = features.site_values(model.run(inputs))
    model.hf(
        batch.clean,
        attention_mask=batch.real.long(),
        position_ids=(batch.real.long().cumsum(-1) - 1).clamp(min=0),
        use_cache=False,
    )
    for name in list(values)[1:]:
        assert values[name].shape[-1] == model.sites.width(name)
        error = (values[name] - read[name])[batch.real].abs().max()
        assert error <= 1e-5 * read[name][batch.real].abs().max(), name


def test_a_block_is_chosen_whole_or_by_what_is_within():
    model, _ = model_and_batch("gpt2")
    assert model.sites.named("attn*.z") == ["attn0.z", "attn1.z", "attn2.z"]
    with pytest.raises(SiteError, match=r"attn1 and attn1.z are one block; choose one of them"):
        model.sites.chosen(["attn1", "attn1.z"])
    for name in ("attn1.hidden", "mlp1.z", "resid1.z", "mlp*.z"):
        with pytest.raises(SiteError, match=r"is no site; .* \.z and \.hidden within attn and mlp"):
            model.sites.named(name)


def test_other_sites_and_widths_are_refused():
    model, _ = model_and_batch("gpt2")
    with pytest.raises(SiteError, match="'resid3' is no site"):
        FeatureModel(model, {"resid3": Identity(model.d_model)})
    with pytest.raises(ValueError, match="site resid1 is 8 wide"):
        FeatureModel(model, {"resid1": Identity(8)})
