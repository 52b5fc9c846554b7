"""Edge and node ablation of features, one target at a time, on Hugging Face's modules.

The network between sites is walked on `SlowModel`, layer by layer; of the engine, only the names of
graphs and `encode` and `decode` of dictionaries are used. Whole tables of features, whole batches,
no sharing, no skipping.
"""

from dataclasses import dataclass

import torch

from edgesweep.engine.graph import FeatureGraph
from tests.oracles.slow_model import SlowModel


@dataclass(frozen=True)
class Node:
    """What all features of a site are, and its error term."""

    f: torch.Tensor
    err: torch.Tensor


class SlowFeatures:
    """A model read at sites, for one batch of tokens.

    Args:
        dictionaries: of every site, `embed` included.
        parents: of every site and of `logits`, in forward order; written out by the test.
    """

    def __init__(self, hf, spec_graph, dictionaries, parents, tokens, real) -> None:
        self.slow = SlowModel(hf, spec_graph, tokens, real)
        self.dictionaries, self.parents, self.real = dictionaries, parents, real

    # --- the plain network ---------------------------------------------------------------------
    def plain(self) -> dict[str, torch.Tensor]:
        """The value of every site, and the logits."""
        found = {"embed": self.slow.embed}
        for target, parents in self.parents.items():
            if target != "embed":
                found[target] = self.segment(target, {p: found[p] for p in parents})
        return found

    def segment(self, target, values):
        stream, done = None, -1
        for site, value in values.items():  # the first parent is a cut, the others write into it
            if stream is None:
                stream, done = value, -1 if site == "embed" else int(site[5:])
        for layer in range(done + 1, self.slow.spec.n_layers):
            attention = values.get(f"attn{layer}")
            if attention is None:
                attention = self._attention(layer, stream)
            if target == f"attn{layer}":
                return attention
            after = stream + attention
            mlp = values.get(f"mlp{layer}")
            if mlp is None:
                mlp = self.slow._mlp(layer, stream if self.slow.spec.parallel else after)
            if target == f"mlp{layer}":
                return mlp
            stream = after + mlp
            if target == f"resid{layer}":
                return stream
        return self._logits(stream)

    def _attention(self, layer, stream):
        """What the attention block adds: Hugging Face's own module, and the norms around it."""
        slow, module = self.slow, self.slow.layers[layer]
        normed = getattr(module, slow.names.norm1)(stream)
        out = slow._attn(layer)(normed, **slow.contexts[layer])[0]
        return out if slow.names.post1 is None else getattr(module, slow.names.post1)(out)

    def _logits(self, stream):
        hf, read = self.slow.hf, self.slow.read
        stack = hf.get_submodule(self.slow.names.stack)
        final = getattr(stack, self.slow.names.final)(stream[torch.arange(len(read)), read])
        logits = hf.get_output_embeddings()(final)
        cap = getattr(hf.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def nodes(self, site, value) -> Node:
        f = self.dictionaries[site].encode(value)
        return Node(f, value - self.dictionaries[site].decode(f))

    # --- ablated runs --------------------------------------------------------------------------
    def edge_ablated(self, graph: FeatureGraph, mask, clean, patch, errors="node"):
        """Logits of the circuit; `clean` and `patch` are a `Node` a site."""
        kept = {graph.edge_name(e) for e in mask.nonzero()[0]}
        now = {"embed": clean["embed"]}
        if errors != "node":
            now["embed"] = Node(clean["embed"].f, self._fixed("embed", clean, patch, errors))
        for site in list(self.parents)[1:-1]:
            value = self._reached(site, f"{site}/err", kept, now, patch, errors)
            fallback = self.nodes(site, value)
            f = fallback.f.clone()
            attributed = (clean[site].f != 0) | (patch[site].f != 0)
            for number in graph.features(site):
                value = self._reached(site, f"{site}/f{number}", kept, now, patch, errors)
                own = self.dictionaries[site].encode(value)[..., number]
                f[..., number] = torch.where(attributed[..., number], own, f[..., number])
            fixed = self._fixed(site, clean, patch, errors)
            now[site] = Node(f, fallback.err if errors == "node" else fixed)
        return self._reached("logits", "logits", kept, now, patch, errors)

    def _fixed(self, site, clean, patch, errors):
        zero = torch.zeros_like(patch[site].err)
        return {"node": None, "clean": clean[site].err, "patch": patch[site].err, "zero": zero}[
            errors
        ]

    def _reached(self, target, name, kept, now, patch, errors):
        """The value of a target, each parent's node at its value in the run or the patch's."""
        values = {}
        for site in self.parents[target]:
            f = patch[site].f.clone()
            for number in range(f.shape[-1]):
                if f"{site}/f{number}->{name}" in kept:
                    f[..., number] = now[site].f[..., number]
            err_kept = errors != "node" or f"{site}/err->{name}" in kept
            err = now[site].err if err_kept else patch[site].err
            values[site] = self.dictionaries[site].decode(f) + err
        return self.segment(target, values)

    def node_ablated(self, kept_names, clean, patch, errors="node"):
        """Logits of the run in which all other nodes are patched after they were encoded."""
        values: dict[str, torch.Tensor] = {}
        for site, parents in list(self.parents.items())[:-1]:
            reached = self.slow.embed
            if parents:
                reached = self.segment(site, {p: values[p] for p in parents})
            was, f = self.nodes(site, reached), patch[site].f.clone()
            for number in range(f.shape[-1]):
                if f"{site}/f{number}" in kept_names:
                    f[..., number] = was.f[..., number]
            err = was.err if f"{site}/err" in kept_names else patch[site].err
            if errors != "node":
                err = self._fixed(site, clean, patch, errors)
            values[site] = self.dictionaries[site].decode(f) + err
        return self.segment("logits", {p: values[p] for p in self.parents["logits"]})
