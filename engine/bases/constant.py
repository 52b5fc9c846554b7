"""The folded constant: every bias b of a network enters as c·b, so that F(0, 0) = 0 (LIB section
5).

c is 1 in every run. It differs along an integration path (c = α), and is what the constant's own
derivative is taken by. It is given for each row and position, since the paper's coordinate is one
of each position's vector.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

Constant = Float[Tensor, "rows positions 1"]


@contextmanager
def folded(network: nn.Module, c: Constant | None) -> Iterator[None]:
    """While the body runs, the biases of a network's modules are multiplied by c; None: by 1.

    Args:
        c: it broadcasts over what each module puts out, `[rows, positions, width]`; of
            convolutions, over `[rows, channels, height, width]`.
    """
    if c is None:
        yield
        return

    def scaled(module: nn.Module, _: Any, out: Tensor) -> Tensor:
        bias: Tensor = module.bias  # type: ignore[assignment]
        if isinstance(module, nn.Conv2d):
            return out + (c.reshape(-1, 1, 1, 1) - 1) * bias[:, None, None]
        return out + (c - 1) * bias

    # GPT-Neo's attention has a mask of that name
    with_bias = [m for m in network.modules() if isinstance(getattr(m, "bias", None), nn.Parameter)]
    hooks = [module.register_forward_hook(scaled) for module in with_bias]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
