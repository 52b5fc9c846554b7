"""What published attribution code got wrong, as tests of ours (field notes, section 7)."""

import copy
import gc

import pytest
import torch
from transformers import AutoModelForCausalLM

from edgesweep.engine.methods import METHODS, MethodError, Settings
from edgesweep.engine.methods.gradients import add_port_gradients, against_clean, empty_gradients
from edgesweep.engine.methods.quadrature import RULES
from edgesweep.engine.network import Model, PromptBatch
from edgesweep.engine.network.plain import PlainConfig
from edgesweep.engine.patches import make_patch
from edgesweep.tasks import Prompt
from tests.oracles.slow_gradients import Ends, patch_of
from tests.tiny import assert_agree, model_and_batch

#: every method that scores edges by gradients
OF_EDGES = ("eap", "eap_patch", "eap_both", "ig_inputs", "ig_activations", "ig_activations_joint")
#: every method that scores nodes by gradients, with sign
OF_NODES = ("node_ap", "node_ig")
COUNTERFACTUAL = make_patch("counterfactual")


def attribute(method, model, batch, kind="counterfactual", metric="logit_diff", **settings):
    patch = patch_of(kind, model)
    return METHODS[method].attribute(model, batch, patch, metric, Settings(**settings))


# --- 2: the activations of EAP-IG average over the paths of all nodes -----------------------------
def test_only_the_own_path_explains_what_a_module_does():
    """The edges out of `embed` sum to its effect on its own path, not on the mean of all paths."""
    model, batch = model_and_batch("llama", dtype=torch.float64)
    out = model.graph.edge_source == 0
    own = attribute("ig_activations", model, batch, steps=32)
    joint = attribute("ig_activations_joint", model, batch, steps=32)
    total = own.metric_clean - own.metric_baseline
    assert_agree(own.scores[:, out].double().sum(1)[:, None], total[:, None], 1e-2)
    gap = (joint.scores[:, out].double().sum(1) - total).abs()
    assert bool((gap > 0.05 * total.abs()).any())


# --- 3: which ends of the path are met ------------------------------------------------------------
@pytest.mark.parametrize("rule", RULES)
def test_exchanging_clean_and_patch_turns_every_sign_unless_the_rule_is_lopsided(rule):
    model, batch = model_and_batch("gpt2", dtype=torch.float64)
    swapped = PromptBatch.make([_exchanged(p) for p in batch.prompts])
    one, other = (attribute("ig_inputs", model, b, steps=3, rule=rule) for b in (batch, swapped))
    error = float((one.scores + other.scores).abs().max() / one.scores.abs().max())
    assert error > 1e-2 if rule in ("left", "right") else error < 1e-6


def _exchanged(p: Prompt) -> Prompt:
    made = copy.copy(p)
    object.__setattr__(made, "clean", p.patch)
    object.__setattr__(made, "patch", p.clean)
    return made


# --- 4: KL has no gradient at the clean point -----------------------------------------------------
@pytest.mark.parametrize("metric", ["kl", "kl_reverse", "js"])
def test_divergences_are_flat_at_clean_so_that_eap_refuses_them(metric):
    model, batch = model_and_batch("llama", dtype=torch.float64)
    inputs = model.prepare(batch.clean, batch.real)
    clean = model.run(inputs)
    objective, _ = against_clean(metric, batch, clean)
    sizes = []
    for embed in (inputs.embed, model.prepare(batch.patch, batch.real).embed):
        gradients = empty_gradients(model, inputs)
        add_port_gradients(model, inputs, embed, objective, gradients)
        sizes.append(max(float(rows.abs().max()) for _, rows in gradients))
    assert sizes[0] < 1e-7 * sizes[1]
    with pytest.raises(MethodError, match="gradient is zero at the clean run; use ig_inputs"):
        attribute("eap", model, batch, metric=metric)


def test_where_a_flat_metric_still_has_a_gradient():
    """Interior points and the patch end see it; a single right point is the clean run."""
    model, batch = model_and_batch("llama", dtype=torch.float64)

    def size(method, **settings):
        return float(attribute(method, model, batch, metric="kl", **settings).scores.abs().max())

    reference = size("ig_inputs", steps=8)
    assert size("ig_inputs", steps=1, rule="right") < 1e-7 * reference
    assert size("ig_inputs", steps=1, rule="midpoint") > 0.1 * reference
    assert size("eap_both") == pytest.approx(size("eap_patch") / 2, rel=1e-5)
    assert size("eap_patch") > 0.1 * reference


# --- 5: the sign ----------------------------------------------------------------------------------
def hand_model() -> tuple[Model, PromptBatch]:
    """One head that looks evenly at what it sees and writes twice its mean; no norm, no MLP.

    Tokens 0, 1, 2 embed as (1, 0), (0, 1), (0, 0); the logits are the stream. Clean is [0, 2],
    patch [1, 2]: the head writes (1, 0) and (0, 1) at the last position. Good is 0, bad is 1.
    """
    config = PlainConfig(
        vocab_size=3,
        n_output=2,
        hidden_size=2,
        num_hidden_layers=1,
        num_attention_heads=1,
        head_dim=2,
        attention_bias=False,
        use_mlp=False,
    )
    hf = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").double()
    for weight in hf.parameters():
        weight.data.zero_()
    hf.model.embed_tokens.weight.data[:2] = hf.lm_head.weight.data[:] = torch.eye(2)
    attention = hf.model.layers[0].self_attn
    attention.v_proj.weight.data[:] = torch.eye(2)
    attention.o_proj.weight.data[:] = 2 * torch.eye(2)
    prompt = Prompt((0, 2), (1, 2), (0,), (1,), "hand", "t", {"end": 1}, "", "")
    return Model(hf, "hand"), PromptBatch.make([prompt])


#: λ(clean) − λ(patch) = 1 − (−1) flows through the head's value, and nowhere else
BY_HAND = {"embed->a0.kv0.v": 2.0, "a0.h0->logits": 2.0}
#: on one of three paths the head's output is overwritten, and what its value reads is nothing
JOINT_BY_HAND = {"embed->a0.kv0.v": 4 / 3, "a0.h0->logits": 2.0}


@pytest.mark.parametrize("method", OF_EDGES)
def test_edges_of_a_model_worked_out_by_hand(method):
    model, batch = hand_model()
    result = attribute(method, model, batch, steps=2)
    named = {
        model.graph.edge_name(e): float(result.scores[0, e]) for e in range(result.scores.shape[1])
    }
    by_hand = JOINT_BY_HAND if method == "ig_activations_joint" else BY_HAND
    assert named.keys() >= by_hand.keys()
    assert named == {name: pytest.approx(by_hand.get(name, 0.0), abs=1e-6) for name in named}
    assert float(result.metric_clean) == pytest.approx(1.0)


@pytest.mark.parametrize("method", OF_NODES)
def test_nodes_of_a_model_worked_out_by_hand(method):
    model, batch = hand_model()
    assert model.graph.sources == ("embed", "a0.h0", "m0")
    scores = attribute(method, model, batch, steps=2).scores
    assert scores[0].tolist() == pytest.approx([2.0, 2.0, 0.0], abs=1e-6)


def test_metrics_for_which_less_is_better_are_turned_round():
    """Patching raises KL, so what embed contributes to −KL is KL at the baseline: positive."""
    model, batch = model_and_batch("gpt2", dtype=torch.float64)
    result = attribute("ig_inputs", model, batch, metric="kl", steps=64)
    reached = result.scores[:, model.graph.edge_source == 0].double().sum(1)
    assert bool((reached > 0).all())
    assert_agree(reached[:, None], -result.metric_baseline[:, None], 1e-3)


@pytest.mark.parametrize("method", OF_NODES)
def test_a_node_that_helps_has_a_positive_score(method):
    """Against λ(clean) − λ(that node alone at its patch value)."""
    model, batch = model_and_batch("llama", dtype=torch.float64)
    ends = Ends.of(model, batch, "counterfactual")
    with torch.no_grad():
        full = ends.value("logit_diff", batch)
        effects = [
            full - ends.value("logit_diff", batch, ends.at([n], 0.0)) for n in model.graph.sources
        ]
    scores = attribute(method, model, batch, steps=8).scores.double()
    pair = torch.stack([scores.flatten(), torch.stack(effects, 1).flatten()])
    assert float(torch.corrcoef(pair)[0, 1]) > 0.5


# --- 6: absolute values before positions are summed -----------------------------------------------
@pytest.mark.parametrize("method", ["eap", "node_ap"])
def test_positions_are_summed_with_their_sign(method):
    model, batch = model_and_batch("gpt2", dtype=torch.float64)
    parts = by_position(model, batch, method == "node_ap")
    scores = attribute(method, model, batch).scores.double()
    assert_agree(scores, parts.sum(-1), 1e-6)
    assert float(parts.abs().sum(-1).sum()) > 1.1 * float(scores.abs().sum())


def test_hisp_takes_the_absolute_value_after_positions_and_before_inputs():
    model, batch = model_and_batch("gpt2", dtype=torch.float64)
    parts = by_position(model, batch, nodes=True)[:, 1 : 2 + model.spec.n_heads].sum(-1).abs()
    ours = attribute("hisp", model, batch).scores[:, 1 : 2 + model.spec.n_heads].double()
    assert_agree(ours, parts / parts.norm(dim=1, keepdim=True), 1e-6)


def by_position(model, batch, nodes):
    """First-order effects at the clean run, `[inputs, scored, positions]`, by the slow model."""
    ends, graph = Ends.of(model, batch, "counterfactual"), model.graph
    shape = (*batch.clean.shape, 1)
    columns = []
    pairs = (
        [(s, None) for s in graph.sources]
        if nodes
        else [graph.edge_name(e).split("->") for e in range(graph.n_edges)]
    )
    for source, target in pairs:
        size = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        by = size * (ends.clean[source] - ends.patch[source])
        added = dict.fromkeys([target] if target else ends.readers(source), by)
        value = ends.value("logit_diff", batch, None, added).sum()
        columns.append(torch.autograd.grad(value, size)[0][..., 0])
    return torch.stack(columns, dim=1)


# --- 7: edges end before the norm, which is not linear --------------------------------------------
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_a_small_change_of_what_a_port_reads_does_what_its_score_says(family):
    """The change is made to the stream, before the norm, which then runs as it is; both signs."""
    model, batch = model_and_batch(family, n_layers=2, dtype=torch.float64)
    ends, step = Ends.of(model, batch, "counterfactual"), 1e-3
    scores = attribute("eap", model, batch).scores.double()
    for edge in range(0, model.graph.n_edges, 7):
        source, _, target = model.graph.edge_name(edge).partition("->")
        delta = step * (ends.clean[source] - ends.patch[source])
        with torch.no_grad():
            up, down = (
                ends.value("logit_diff", batch, None, {target: by}) for by in (delta, -delta)
            )
        change = (up - down) / (2 * step)
        assert torch.allclose(scores[:, edge], change, rtol=1e-3, atol=1e-3)


# --- 8: shared keys and values --------------------------------------------------------------------
@pytest.mark.parametrize("method", [*OF_EDGES, *OF_NODES, "hisp"])
def test_a_shared_key_or_value_scores_as_the_sum_of_its_copies(method):
    grouped, batch = model_and_batch("llama", dtype=torch.float64)
    apart = ungrouped(grouped)
    ours = attribute(method, grouped, batch, steps=2).scores.double()
    theirs = attribute(method, apart, batch, steps=2).scores.double()
    if METHODS[method].scores_nodes:
        assert_agree(ours, theirs, 1e-6)
        return
    summed = torch.zeros_like(ours)
    for edge in range(apart.graph.n_edges):
        summed[:, grouped.graph.edge_index(shared(apart.graph.edge_name(edge)))] += theirs[:, edge]
    assert_agree(ours, summed, 1e-6)


def shared(name: str) -> str:
    """An edge of the ungrouped model as the grouped one names it: two heads share a key head."""
    source, _, target = name.partition("->")
    parts = [f"kv{int(p[2:]) // 2}" if p.startswith("kv") else p for p in target.split(".")]
    return f"{source}->{'.'.join(parts)}"


def ungrouped(model: Model) -> Model:
    """The same function with a key and a value a query head."""
    config = copy.deepcopy(model.hf.config)
    spec = model.spec
    config.num_key_value_heads = spec.n_heads
    weights = {}
    for name, weight in model.hf.state_dict().items():
        if "k_proj" in name or "v_proj" in name:
            per_head = weight.unflatten(0, (spec.n_kv_heads, -1))
            weight = per_head.repeat_interleave(spec.n_heads // spec.n_kv_heads, 0).flatten(0, 1)
        weights[name] = weight
    hf = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").double()
    hf.load_state_dict(weights)
    return Model(hf, "ungrouped")


# --- 15: hooks, in-place edits, graphs left behind ------------------------------------------------
@pytest.mark.parametrize("method", [*OF_EDGES, *OF_NODES, "hisp"])
def test_a_method_leaves_nothing_behind(method):
    """Twice the same bits, inputs and weights untouched, no graph kept, whatever the grad mode."""
    model, batch = model_and_batch("gemma2")
    weights = {name: w.clone() for name, w in model.hf.state_dict().items()}
    tokens = batch.clean.clone(), batch.patch.clone()
    first = attribute(method, model, batch, "mean", steps=2)
    with torch.no_grad():
        again = attribute(method, model, batch, "mean", steps=2)
    assert torch.equal(first.scores, again.scores)
    assert torch.equal(batch.clean, tokens[0])
    assert torch.equal(batch.patch, tokens[1])
    assert all(torch.equal(w, weights[name]) for name, w in model.hf.state_dict().items())
    assert all(w.grad is None and not w.requires_grad for w in model.hf.parameters())
    gc.collect()
    ours = [first.scores, first.residual, first.metric_clean, first.metric_baseline]
    assert not any(t.requires_grad for t in ours)
    assert not [t for t in gc.get_objects() if type(t) is torch.Tensor and t.grad_fn is not None]


# --- 16: total effects, not direct ones -----------------------------------------------------------
def test_scores_are_total_effects_downstream():
    """Edges out of embed sum to the slope of λ along the embeddings; the direct edge does not."""
    model, batch = model_and_batch("gpt2", dtype=torch.float64)
    inputs = model.prepare(batch.clean, batch.real)
    patch = model.prepare(batch.patch, batch.real).embed
    size = torch.zeros(len(batch), 1, 1, dtype=torch.float64, requires_grad=True)
    run = model.run(inputs, inputs.embed + size * (inputs.embed - patch))
    objective, _ = against_clean("logit_diff", batch, run)
    slope = torch.autograd.grad(objective(run.logits).sum(), size)[0].flatten()
    scores = attribute("eap", model, batch).scores.double()
    out = scores[:, model.graph.edge_source == 0].sum(1)
    assert_agree(out[:, None], slope[:, None], 1e-6)
    direct = scores[:, model.graph.edge_index("embed->logits")]
    assert bool(((direct - slope).abs() > 0.1 * slope.abs()).any())
