"""One suite for every kind of dictionary: against loops over features, and against autograd.

A new kind joins with a line in `MEMBERS` and its formula in `slow_features`.
"""

import math

import pytest
import torch

from edgesweep.engine.dictionaries import (
    Dictionary,
    DictionaryError,
    Gated,
    Identity,
    JumpRelu,
    Linear,
    NoDictionary,
    Relu,
    TopK,
)

WIDTH, FEATURES, K = 8, 12, 3


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


ENCODER, DECODER = numbers(FEATURES, WIDTH, seed=1), numbers(FEATURES, WIDTH, seed=2)
SHIFT, BIAS = numbers(FEATURES, seed=3), numbers(WIDTH, seed=4)
PARTS = (ENCODER, SHIFT, DECODER, BIAS)
LEVEL = numbers(FEATURES, seed=5)  # thresholds below 0 too: they change nothing
GATE, SIZE, SCALE = (numbers(FEATURES, seed=seed) for seed in (6, 7, 8))
BASIS = numbers(WIDTH, WIDTH, seed=9)

MEMBERS = {
    "none": lambda: NoDictionary(WIDTH),
    "identity": lambda: Identity(WIDTH),
    "linear": lambda: Linear.of_basis(BASIS, BIAS),
    "orthogonal": lambda: Linear.of_basis(torch.linalg.qr(BASIS)[0]),
    "relu": lambda: Relu(*PARTS),
    "relu-uncentred": lambda: Relu(*PARTS, centred=False),
    "gated": lambda: Gated(ENCODER, DECODER, BIAS, GATE, SIZE, SCALE),
    "gated-uncentred": lambda: Gated(ENCODER, DECODER, BIAS, GATE, SIZE, SCALE, centred=False),
    "jumprelu": lambda: JumpRelu(*PARTS, LEVEL),
    "jumprelu-uncentred": lambda: JumpRelu(*PARTS, LEVEL, centred=False),
    "topk": lambda: TopK(*PARTS, K),
    "topk-uncentred": lambda: TopK(*PARTS, K, centred=False),
    "topk-all": lambda: TopK(*PARTS, FEATURES),
}
DENSE = ("identity", "linear", "orthogonal")


@pytest.fixture(params=MEMBERS)
def member(request) -> tuple[str, Dictionary]:
    return request.param, MEMBERS[request.param]().to(dtype=torch.float64)


def values(*rows: int, seed: int = 0) -> torch.Tensor:
    return numbers(*rows, WIDTH, seed=100 + seed)


# --- the formulas, one feature at a time -------------------------------------------------------
def slow_features(name: str, x: list[float]) -> list[float]:
    if name == "none":
        return []
    if name == "identity":
        return x
    if name in ("linear", "orthogonal"):
        basis, bias = (BASIS, BIAS) if name == "linear" else (torch.linalg.qr(BASIS)[0], 0 * BIAS)
        return torch.linalg.solve(basis.T, torch.tensor(x, dtype=torch.float64) - bias).tolist()
    kind, _, how = name.partition("-")
    centre = [0.0] * WIDTH if how == "uncentred" else BIAS.tolist()
    dots = [
        sum(e * (value - c) for e, value, c in zip(row, x, centre, strict=True))
        for row in ENCODER.tolist()
    ]
    if kind == "gated":
        return [
            max(math.exp(s) * dot + m, 0.0) if dot + g > 0 else 0.0
            for dot, g, m, s in zip(dots, GATE.tolist(), SIZE.tolist(), SCALE.tolist(), strict=True)
        ]
    before = [dot + h for dot, h in zip(dots, SHIFT.tolist(), strict=True)]
    if kind == "relu":
        return [max(a, 0.0) for a in before]
    if kind == "jumprelu":
        levels = LEVEL.tolist()
        return [max(a, 0.0) if a > t else 0.0 for a, t in zip(before, levels, strict=True)]
    best = sorted(before, reverse=True)[: FEATURES if how == "all" else K]
    return [a if a in best and a > 0 else 0.0 for a in before]


def slow_decoded(dictionary: Dictionary, f: list[float]) -> list[float]:
    rows, bias = dictionary.decoder.tolist(), dictionary.bias.tolist()
    return [bias[i] + sum(f[j] * rows[j][i] for j in range(len(f))) for i in range(WIDTH)]


# --- the suite ---------------------------------------------------------------------------------
def test_features_are_the_formula(member):
    name, dictionary = member
    x = values(40)
    expected = torch.tensor([slow_features(name, row) for row in x.tolist()], dtype=x.dtype)
    assert dictionary.encode(x).shape == (40, dictionary.n_features)
    torch.testing.assert_close(dictionary.encode(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [(), (0,), (1,), (2, 3), (2, 1, 2)], ids=str)
def test_any_leading_axes(member, rows):
    _, dictionary = member
    x = values(*rows)
    found = dictionary.encode(x)
    assert found.shape == (*rows, dictionary.n_features)
    flat = dictionary.encode(x.reshape(-1, WIDTH))
    torch.testing.assert_close(found.reshape(flat.shape), flat, rtol=0, atol=1e-12)
    assert dictionary.slopes(x).shape == found.shape
    assert dictionary.decode(found).shape == dictionary.error(x).shape == x.shape


def test_some_features_are_the_same_as_among_all(member):
    _, dictionary = member
    x, n = values(4, 5), dictionary.n_features
    chosen = [[], [0], [n - 1, 0, 2, 2], list(range(n))] if n else [[]]
    for some in chosen:
        features = torch.tensor(some, dtype=torch.long)
        found, among_all = dictionary.encode_some(x, features), dictionary.encode(x)[..., features]
        torch.testing.assert_close(found, among_all, rtol=0, atol=1e-12)
        assert dictionary.directions(features).shape == (len(some), WIDTH)


def test_slopes_along_directions_are_the_derivative(member):
    _, dictionary = member
    everything = torch.arange(dictionary.n_features)
    assert dictionary.slopes(values(20)).shape == (20, dictionary.n_features)
    for x in values(20) if dictionary.n_features else ():
        jacobian = torch.autograd.functional.jacobian(dictionary.encode, x)
        ours = dictionary.slopes(x)[:, None] * dictionary.directions(everything)
        torch.testing.assert_close(ours, jacobian, rtol=0, atol=1e-12)


def test_decoding_is_affine(member):
    _, dictionary = member
    f, g = (numbers(6, dictionary.n_features, seed=seed) for seed in (20, 21))
    expected = torch.tensor([slow_decoded(dictionary, row) for row in f.tolist()], dtype=f.dtype)
    torch.testing.assert_close(dictionary.decode(f), expected, rtol=0, atol=1e-12)
    between = dictionary.decode(0.3 * f + 0.7 * g)
    mixed = 0.3 * dictionary.decode(f) + 0.7 * dictionary.decode(g)
    torch.testing.assert_close(between, mixed, rtol=0, atol=1e-12)
    assert torch.equal(dictionary.decode(0 * f)[0], dictionary.bias)


def test_features_and_error_make_up_the_value(member):
    name, dictionary = member
    x = values(30)
    whole = dictionary.decode(dictionary.encode(x)) + dictionary.error(x)
    torch.testing.assert_close(whole, x, rtol=0, atol=1e-12)
    size = dictionary.error(x).abs().max()
    if name == "none":
        assert torch.equal(dictionary.error(x), x)
    else:
        assert size < 1e-10 if name in DENSE else size > 0.1


def test_only_kinds_called_discontinuous_jump(member):
    name, dictionary = member
    steps = torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None]
    start, end = values(2, seed=1)
    f = dictionary.encode((1 - steps) * start + steps * end)
    if not dictionary.n_features:
        assert dictionary.continuous
        return
    steepest = dictionary.directions(torch.arange(dictionary.n_features)).norm(dim=1)
    steepest = steepest * (SCALE.exp() if dictionary.kind == "gated" else 1.0)
    smooth = steepest * (end - start).norm() / 4000
    jumps = bool(((f[1:] - f[:-1]).abs() > 1.001 * smooth).any())
    if name == "topk-all":  # all of them: a ReLU
        assert not jumps
    else:
        assert jumps is not dictionary.continuous


def test_separable_kinds_do_not_look_at_other_features(member):
    _, dictionary = member
    if "encoder" not in dictionary.tensors():
        assert dictionary.separable
        return
    x, one = values(50), torch.tensor([7])
    before = dictionary.encode_some(x, one)
    assert before.any()
    other = dictionary.to()
    other.encoder = torch.where(torch.arange(len(other.encoder))[:, None] == 7, other.encoder, 9.0)
    same = torch.equal(other.encode_some(x, one), before)
    if dictionary.separable:
        assert same
    elif getattr(dictionary, "k", 0) < FEATURES:
        assert not same


def test_the_digest_is_of_all_numbers(member):
    name, dictionary = member
    again = MEMBERS[name]().to(dtype=torch.float64)
    assert again.digest == dictionary.digest
    assert len(dictionary.digest) == 64
    found = {dictionary.digest, dictionary.to(dtype=torch.float32).digest}
    for tensor_name, tensor in dictionary.tensors().items():
        changed = dictionary.to()
        if tensor.numel():
            numbers_of = tensor.flatten().clone()
            numbers_of[-1] += 1.0
            setattr(changed, tensor_name, numbers_of.reshape(tensor.shape))
            found.add(changed.digest)
    n_filled = sum(t.numel() > 0 for t in dictionary.tensors().values())
    assert len(found) == 2 + n_filled


def test_no_two_members_share_a_digest():
    digests = {make().to(dtype=torch.float64).digest for make in MEMBERS.values()}
    assert len(digests) == len(MEMBERS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_precision_is_that_of_the_tensors(member, dtype):
    _, dictionary = member
    other = dictionary.to(dtype=dtype)
    x = values(3).to(dtype)
    f = other.encode(x)
    some = torch.arange(other.n_features)
    for found in (
        f,
        other.encode_some(x, some),
        other.slopes(x),
        other.directions(some),
        other.decode(f),
        other.error(x),
    ):
        assert found.dtype == dtype
    assert all(t.dtype == torch.float64 for t in dictionary.tensors().values())
    if dtype == torch.float32:
        near = dictionary.encode(x.double())
        torch.testing.assert_close(f.double(), near, rtol=0, atol=1e-5)


def test_another_device(member):
    """`meta` has shapes alone: what is made on the wrong device fails there."""
    _, dictionary = member
    other = dictionary.to("meta")
    x = values(3).to("meta")
    found = other.error(x), other.slopes(x), other.encode(x)
    assert {t.device.type for t in (*found, *other.tensors().values())} == {"meta"}
    assert all(t.device.type == "cpu" for t in dictionary.tensors().values())


# --- kinds by themselves -----------------------------------------------------------------------
def test_top_k_keeps_the_largest_positive_ones():
    eye, zeros = torch.eye(4), torch.zeros(4)
    dictionary = TopK(eye, zeros, eye, zeros, 2)
    x = torch.tensor([[4.0, 3.0, 2.0, 1.0], [-1.0, -2.0, 5.0, -3.0], [-1.0, -2.0, -3.0, -4.0]])
    assert dictionary.encode(x).tolist() == [[4, 3, 0, 0], [0, 0, 5, 0], [0, 0, 0, 0]]
    assert dictionary.slopes(x).tolist() == [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_jump_relu_is_off_at_its_threshold():
    one = torch.eye(1)
    dictionary = JumpRelu(one, torch.zeros(1), one, torch.zeros(1), torch.ones(1))
    assert dictionary.encode(torch.tensor([[1.0], [1.5], [0.5]])).tolist() == [[0], [1.5], [0]]


def test_the_identity_takes_any_point_apart_whole():
    x = values(5)
    dictionary = Identity(WIDTH).to(dtype=torch.float64)
    assert torch.equal(dictionary.decode(dictionary.encode(x)), x)


@pytest.mark.parametrize("k", [0, -1, FEATURES + 1])
def test_impossible_k(k):
    with pytest.raises(DictionaryError, match=f"k is {k} of 12 features; allowed: 1 to all"):
        TopK(*PARTS, k)


def test_bases_without_an_inverse():
    with pytest.raises(DictionaryError, match=r"shape \(3, 8\) is not square"):
        Linear.of_basis(BASIS[:3])
    for dtype in (torch.float32, torch.float64):
        basis = BASIS.clone().to(dtype)
        basis[3] = basis[0] + 2 * basis[1]  # to rounding
        with pytest.raises(DictionaryError, match="has no inverse: its rows are dependent"):
            Linear.of_basis(basis)
