"""EAP-IG as its published code sums it (Hanna et al. 2024), on `SlowModel`: loss and all.

For step 0, 1, …, steps − 1 the embeddings are corrupted + step/steps × (clean − corrupted), a loss
that is to be low is pulled back to what every port reads, and (corrupted − clean) of every source
is multiplied with it; the sum is divided by the number of steps. Minus a loss is a metric, so that
the signs are ours.
"""

import torch

from edgesweep.engine.metrics import oriented
from tests.oracles.slow_model import SlowModel


def eap_ig_inputs(model, batch, metric, steps):
    """Scores of all edges, `[inputs, edges]`."""
    clean = SlowModel(model.hf, model.graph, batch.clean, batch.real)
    corrupted = SlowModel(model.hf, model.graph, batch.patch, batch.real)
    with torch.no_grad():
        clean_logits, clean_written = clean.forward(clean.plain)
        _, corrupted_written = corrupted.forward(corrupted.plain)
    difference = {name: corrupted_written[name] - clean_written[name] for name in clean_written}
    scores = torch.zeros(len(batch), model.graph.n_edges, dtype=clean_logits.dtype)
    for step in range(steps):
        share = step / steps
        embed = corrupted.embed + share * (clean.embed - corrupted.embed)
        for target, gradient in _loss_gradients(clean, embed, metric, batch, clean_logits).items():
            for source in clean.sources_of(target):
                edge = model.graph.edge_index(f"{source}->{target}")
                scores[:, edge] += (difference[source] * gradient).sum((1, 2))
    return scores / steps


def _loss_gradients(slow, embed, metric, batch, clean_logits):
    """Of minus the metric, at the stream that each target reads."""
    read = {}

    def stream_of(target, values, constant):
        read[target] = slow.plain(target, values, constant)
        return read[target]

    logits, _ = slow.forward(stream_of, embed.requires_grad_())
    loss = -oriented(metric, logits, batch, clean_logits).sum()
    found = torch.autograd.grad(loss, list(read.values()), materialize_grads=True)
    return dict(zip(read, found, strict=True))
