"""A feed-forward network written out from its weights, and what is computed over its neurons.

One edge, one unit and one point of the path at a time, with plain autograd; of the engine, only the
names in graphs are used. A site's value is a flat vector, its features are its coordinates.
"""

import torch
from torch.nn import functional

ACTIVATIONS = {"relu": functional.relu, "gelu": functional.gelu, "linear": lambda x: x}


class SlowNet:
    """The layers of a network, one function from flat vector to flat vector each.

    Args:
        config, weights: of its folder.
        chosen: the sites that are read, `input` first; what lies between is a section.
    """

    def __init__(self, config, weights, chosen) -> None:
        self.chosen, self.weights = list(chosen), weights
        act, layers, names = ACTIVATIONS[config.activation], [], ["input"]
        shape = (1, *config.input_shape)[-3:]
        for i, channels in enumerate(config.channels):
            layers.append(self._convolution(i, shape, config, act))
            sides = [(n + 2 * config.padding - config.kernel_size + 1) for n in shape[1:]]
            shape = (channels, *(n // config.pool for n in sides))
            names.append(f"conv{i}")
        for i, _ in enumerate(config.hidden):
            layers.append(self._dense(i, act))
            names.append(f"hidden{i}")
        self.layers, self.names = layers, names

    def _convolution(self, i, shape, config, act):
        def layer(x):
            weight, bias = self.weights[f"conv.{i}.map.weight"], self.weights[f"conv.{i}.map.bias"]
            out = functional.conv2d(x.reshape(1, *shape), weight, bias, padding=config.padding)
            return functional.max_pool2d(act(out), config.pool).flatten()

        return layer

    def _dense(self, i, act):
        def layer(x):
            weight, bias = (self.weights[f"hidden.{i}.map.{n}"] for n in ("weight", "bias"))
            return act(functional.linear(x, weight, bias))

        return layer

    def logits(self, x):
        return functional.linear(x, self.weights["output.weight"], self.weights["output.bias"])

    def parent(self, target):
        place = len(self.chosen) if target == "logits" else self.chosen.index(target)
        return self.chosen[place - 1]

    def section(self, target, x):
        """A site's value (of `logits`, the outputs) from that of the chosen site before it."""
        first = self.names.index(self.parent(target))
        last = len(self.layers) if target == "logits" else self.names.index(target)
        for layer in self.layers[first:last]:
            x = layer(x)
        return self.logits(x) if target == "logits" else x

    def values(self, x):
        """Of every chosen site, and the outputs."""
        found = {"input": x}
        for name in [*self.chosen[1:], "logits"]:
            found[name] = self.section(name, found[self.parent(name)])
        return found

    def downstream(self, site, x):
        """The outputs when a site has another value."""
        for name in [*self.chosen[self.chosen.index(site) + 1 :], "logits"]:
            x = self.section(name, x)
        return x


def logit_diff(logits, example):
    return logits[list(example.good)].mean() - logits[list(example.bad)].mean()


def node_gradient(net, site, clean, patch, points, example):
    """ḡ of a site, one unit at a time."""
    found = torch.zeros_like(clean[site])
    for t, weight in points:
        for j in range(len(found)):
            x = torch.lerp(patch[site], clean[site], t)
            found[j] += weight * _derivative(
                lambda v: logit_diff(net.downstream(site, v), example), x, j
            )
    return found


def _derivative(scalar, x, i):
    """∂scalar/∂x_i, with x_i alone a leaf."""
    leaf = x[i].detach().clone().requires_grad_()
    value = scalar(torch.cat([x[:i], leaf[None], x[i + 1 :]]))
    return torch.autograd.grad(value + 0 * leaf, leaf)[0]


def edges(net, clean, patch, points, example, kind="attribution"):
    """Weight of every edge between neurons by name, in units of the metric.

    With kind "metric" a target is worth the metric of the run in which it alone has moved; with
    "value" weights are in the target's own units.
    """
    found = {}
    for target in [*net.chosen[1:], "logits"]:
        parent = net.parent(target)
        delta = clean[parent] - patch[parent]
        units = [None] if target == "logits" else range(len(clean[target]))
        factors = None
        if target != "logits":
            factors = node_gradient(net, target, clean, patch, points, example)
        for j in units:

            def scalar(v, target=target, j=j):
                out = net.section(target, v)
                if j is None:
                    return logit_diff(out, example)
                if kind != "metric":
                    return out[j]
                alone = torch.cat([clean[target][:j], out[j : j + 1], clean[target][j + 1 :]])
                return logit_diff(net.downstream(target, alone), example)

            name = target if j is None else f"{target}/f{j}"
            factor = 1.0 if j is None or kind != "attribution" else float(factors[j])
            if kind != "metric" and j is not None and clean[target][j] == patch[target][j]:
                factor = 0.0
            for i in range(len(delta)):
                raw = sum(
                    w * _derivative(scalar, torch.lerp(patch[parent], clean[parent], t), i)
                    for t, w in points
                )
                found[f"{parent}/f{i}->{name}"] = float(delta[i] * raw) * factor
    return found


def edge_ablated(net, kept, clean, patch):
    """Outputs of a circuit: every unit reads its own mix of its parent's kept and patched units.

    A unit that is 0 in both runs, as no edge into it was attributed, reads what the error node
    does.
    """
    now = {"input": clean["input"]}
    for site in [*net.chosen[1:], "logits"]:
        parent, out = net.parent(site), []
        if site == "logits":
            return net.section(site, _mixed(kept, now, patch, parent, "logits"))
        for j in range(len(clean[site])):
            idle = clean[site][j] == 0 and patch[site][j] == 0
            name = f"{site}/err" if idle else f"{site}/f{j}"
            out.append(net.section(site, _mixed(kept, now, patch, parent, name))[j])
        now[site] = torch.stack(out)
    raise AssertionError("the last target is the logits")


def _mixed(kept, now, patch, parent, target):
    x = patch[parent].clone()
    for i in range(len(x)):
        if f"{parent}/f{i}->{target}" in kept:
            x[i] = now[parent][i]
    return x


def node_ablated(net, kept, clean, patch):
    """Outputs when all other units take their patch value after they are computed."""
    x = None
    for site in net.chosen:
        reached = clean["input"] if x is None else net.section(site, x)
        x = patch[site].clone()
        for j in range(len(x)):
            if f"{site}/f{j}" in kept:
                x[j] = reached[j]
    return net.section("logits", x)
