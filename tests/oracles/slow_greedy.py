"""The greedy circuit by its definition: of all edges into what there is, the largest, again and
again. Names alone say what ends where."""


def slow_greedy(graph, scores, n_edges):
    """Names of the first `n_edges` edges, in the order in which they are taken."""
    edges = {graph.edge_name(e): abs(scores[e]) for e in range(graph.n_edges)}
    joined, taken = {"logits"}, []
    while len(taken) < n_edges:
        candidates = [
            edge
            for edge in edges
            if edge not in taken and joined & set(readers(graph, edge.split("->")[1]))
        ]
        if not candidates:
            break
        best = max(candidates, key=lambda edge: edges[edge])  # the first of equal ones
        taken.append(best)
        joined.add(best.split("->")[0])
    return taken


def readers(graph, target):
    """The nodes that a port belongs to: `a1.kv0.k` to every head of its group."""
    node, _, port = target.rpartition(".")
    if not port or node == "":
        return [target]
    if ".kv" not in node:
        return [node]
    layer, _, group = node.partition(".kv")
    size = graph.spec.n_heads // graph.spec.n_kv_heads
    return [f"{layer}.h{h}" for h in range(int(group) * size, (int(group) + 1) * size)]
