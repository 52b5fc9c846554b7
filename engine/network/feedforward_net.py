"""A feed-forward network in a folder: convolutions, then dense layers, then the outputs.

    x ← pool(act(W * x + b))        for each of `channels`
    x ← act(W x + b)                for each of `hidden`
    outputs = W x + b

An MLP has no `channels`. It is a Hugging Face model (model_type "feedforward", safetensors and
config.json), so that its files are read and refused as those of every other model. Values are flat
vectors; a convolution's holds its channels one after the other.
"""

import math
from collections.abc import Iterator
from typing import Any

from huggingface_hub.dataclasses import strict
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

Read = Float[Tensor, "*rows n_in"]
Written = Float[Tensor, "*rows n_out"]
Shape = tuple[int, ...]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "linear": nn.Identity,
}


@strict
class FeedForwardConfig(PreTrainedConfig):
    """Sizes of a feed-forward network.

    Attributes:
        input_shape: of what it reads: `[n]`, `[height, width]` or `[channels, height, width]`.
        channels: of each convolution.
        kernel_size: side of each convolution's kernels; one number for all alike.
        padding, pool: of every convolution; `pool` is the side of its max-pooling.
        hidden: width of each dense layer.
        n_output: numbers that it puts out: logits of classes, or just numbers.
        activation: one of `ACTIVATIONS`.
        bias: whether the maps have biases.
    """

    model_type = "feedforward"

    input_shape: list[int] | tuple[int, ...] = (8, 8)
    channels: list[int] | tuple[int, ...] = ()
    kernel_size: int | list[int] | tuple[int, ...] = 3
    padding: int = 1
    pool: int = 2
    hidden: list[int] | tuple[int, ...] = (64,)
    n_output: int = 10
    activation: str = "relu"
    bias: bool = True

    @property
    def num_hidden_layers(self) -> int:
        return len(self.channels) + len(self.hidden)

    def widths(self) -> dict[str, int]:
        """Numbers at every site: the input, what each convolution and each dense layer put out.

        Raises:
            ValueError: sizes or an activation that no network has; a convolution that leaves
                nothing.
        """
        self._check()
        found = {"input": math.prod(self.input_shape)}
        shapes = list(self.image_shapes())[1:]
        found |= {f"conv{i}": math.prod(shape) for i, shape in enumerate(shapes)}
        return found | {f"hidden{i}": int(width) for i, width in enumerate(self.hidden)}

    def kernels(self) -> tuple[int, ...]:
        """Side of the kernels of each convolution."""
        if isinstance(self.kernel_size, int):
            return (self.kernel_size,) * len(self.channels)
        return tuple(self.kernel_size)

    def _check(self) -> None:
        if len(self.kernels()) != len(self.channels):
            raise ValueError(
                f"kernel_size is {self.kernel_size}, of {len(self.channels)} convolutions; give "
                "one number, or as many"
            )
        if self.activation not in ACTIVATIONS:
            allowed = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation is {self.activation!r}; allowed: {allowed}")
        sizes = (*self.input_shape, *self.channels, *self.hidden, *self.kernels(), self.pool)
        if min(*sizes, self.n_output, self.padding + 1) < 1:
            raise ValueError("a size is below 1")

    def image_shapes(self) -> Iterator[Shape]:
        """`(channels, height, width)` of the input and of what each convolution puts out."""
        if not self.channels:
            return
        if len(self.input_shape) not in (2, 3):
            raise ValueError(f"input_shape is {list(self.input_shape)}; convolutions read images")
        shape: Shape = (1, *self.input_shape)[-3:]
        yield shape
        for channels, kernel in zip(self.channels, self.kernels(), strict=True):
            sides = [(side + 2 * self.padding - kernel + 1) // self.pool for side in shape[1:]]
            if min(sides) < 1:
                raise ValueError(
                    f"a convolution of {channels} channels leaves nothing of {shape[1]}×{shape[2]};"
                    " use fewer, smaller kernels, or less pooling"
                )
            shape = (int(channels), *sides)
            yield shape


class Convolution(nn.Module):
    """Convolution, activation and max-pooling, from flat vectors to flat vectors."""

    def __init__(self, shape: Shape, channels: int, side: int, config: FeedForwardConfig) -> None:
        super().__init__()
        self._shape, padding = shape, config.padding
        self.map = nn.Conv2d(shape[0], channels, side, padding=padding, bias=config.bias)
        self.act = ACTIVATIONS[config.activation]()
        self._pool = config.pool

    def forward(self, x: Read) -> Written:
        out = self.act(self.map(x.reshape(-1, *self._shape)))
        # each side in pieces of `pool`; what is over is dropped
        pool, (height, width) = self._pool, out.shape[-2:]
        out = out[..., : height // pool * pool, : width // pool * pool]
        out = out.unflatten(-1, (-1, pool)).unflatten(-3, (-1, pool)).amax((-1, -3))
        return out.reshape(*x.shape[:-1], -1)


class Dense(nn.Module):
    """Linear map and activation."""

    def __init__(self, n_in: int, n_out: int, config: FeedForwardConfig) -> None:
        super().__init__()
        self.map = nn.Linear(n_in, n_out, bias=config.bias)
        self.act = ACTIVATIONS[config.activation]()

    def forward(self, x: Read) -> Written:
        out: Tensor = self.act(self.map(x))
        return out


class FeedForwardNet(PreTrainedModel):
    """The weights, and the plain forward from arrays to outputs."""

    config_class = FeedForwardConfig
    base_model_prefix = ""
    main_input_name = "x"

    def __init__(self, config: FeedForwardConfig) -> None:
        super().__init__(config)
        self.widths = config.widths()
        widths = list(self.widths.values())
        shapes = list(config.image_shapes())
        n_conv = len(config.channels)
        self.conv = nn.ModuleList(
            Convolution(shape, channels, side, config)
            for shape, channels, side in zip(
                shapes, config.channels, config.kernels(), strict=False
            )
        )
        self.hidden = nn.ModuleList(
            Dense(n_in, n_out, config)
            for n_in, n_out in zip(widths[n_conv:], widths[n_conv + 1 :], strict=False)
        )
        self.output = nn.Linear(widths[-1], config.n_output, bias=config.bias)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Torch's own stay."""

    @property
    def blocks(self) -> list[nn.Module]:
        """Every layer but the last, in forward order."""
        return [*self.conv, *self.hidden]

    def forward(self, x: Float[Tensor, "inputs ..."], **_: Any) -> Float[Tensor, "inputs outputs"]:
        value = x.flatten(1)
        for block in self.blocks:
            value = block(value)
        out: Tensor = self.output(value)
        return out


AutoConfig.register(FeedForwardConfig.model_type, FeedForwardConfig, exist_ok=True)
AutoModel.register(FeedForwardConfig, FeedForwardNet, exist_ok=True)
