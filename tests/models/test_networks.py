"""The reference networks: what may influence what, and attention against a naive reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from penstock.models._attention import Attention
from penstock.models._cnn import CnnModel
from penstock.models._fusion import FusionModel
from penstock.models._sequence import ActionModel, MarketModel, SequenceTransformer
from penstock.models._weights import initialise
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


def _seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    initialise(module, seed)
    return module.eval().requires_grad_(False)


def _relative(one: Tensor, two: Tensor) -> float:
    return float((one - two).norm() / two.norm())


def _noise(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def _naive_attention(layer: Attention, x: Tensor, padding: Tensor | None) -> Tensor:
    """Softmax attention written out, head by head, with padded keys left out instead of weighed down."""
    batch, tokens, width = x.shape
    size = width // layer.heads
    q, k, v = layer.qkv(x).double().chunk(3, -1)
    rows = []
    for b in range(batch):
        heads = []
        for h in range(layer.heads):
            part = slice(h * size, (h + 1) * size if padding is None else (h + 1) * size - 1)
            scores = q[b, :, part] @ k[b, :, part].T / size**0.5
            if layer.causal:
                scores = scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -torch.inf)
            if padding is not None:
                scores = scores.masked_fill(padding[b].bool(), -torch.inf)
            heads.append(torch.softmax(scores, -1) @ v[b, :, h * size : (h + 1) * size])
        rows.append(torch.cat(heads, -1))
    return layer.out(torch.stack(rows).float())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("backend", [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])
def test_attention_agrees_with_softmax_written_out(causal: bool, padded: bool, backend: SDPBackend) -> None:
    layer = _seeded(Attention(32, 4, causal=causal))
    x = _noise(1, 3, 24, 32)
    padding = torch.zeros(3, 24)
    padding[1, 20:], padding[2, 5:] = 1, 1
    mask = padding if padded else None
    with sdpa_kernel(backend):
        got = layer(x, mask)
    assert _relative(got, _naive_attention(layer, x, mask)) < 1e-5


@pytest.mark.parametrize("length", [16, 200])
def test_flash_and_math_agree(length: int) -> None:
    model = _seeded(SequenceTransformer(length))
    x = _noise(2, 2, length, 64)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        flash = model(x)
    with sdpa_kernel(SDPBackend.MATH):
        assert _relative(flash, model(x)) < 1e-5


def test_a_causal_model_does_not_look_ahead() -> None:
    model = _seeded(SequenceTransformer(32))
    x = _noise(3, 2, 32, 64)
    later = x.clone()
    later[:, 20:] = -later[:, 20:]
    assert _relative(model(later)[:, :20], model(x)[:, :20]) < 1e-6
    assert _relative(model(later)[:, 20:], model(x)[:, 20:]) > 1e-2


def test_positions_matter() -> None:
    model = _seeded(SequenceTransformer(16, causal=False))
    x = _noise(4, 1, 16, 64)
    assert _relative(model(x.flip(1)).flip(1), model(x)) > 1e-3


def test_market_probabilities_ignore_the_unit_of_each_feature() -> None:
    model = _seeded(MarketModel(length=16, features=4))
    x = _noise(5, 8, 16, 4)
    got = model(x)
    torch.testing.assert_close(got.sum(-1), torch.ones(8))
    scaled = x * torch.tensor([0.01, 1.0, 1e4, 3.0]) + torch.tensor([100.0, 0.0, 5e4, -7.0])
    torch.testing.assert_close(model(scaled), got, atol=2e-3, rtol=0)
    assert got.std(0).max() > 0.01  # and it does depend on the data


def test_a_feature_that_never_changes_is_not_a_division_by_zero() -> None:
    assert torch.isfinite(_seeded(MarketModel(length=8, features=2))(torch.full((2, 8, 2), 7.0))).all()


def test_padding_in_front_of_actions_has_no_influence() -> None:
    model = _seeded(ActionModel(length=16, vocabulary=20))
    tokens = torch.randint(1, 20, (4, 16), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    tokens[:, :6] = 0
    context = _noise(6, 4, 16, 3)
    changed = context.clone()
    changed[:, :6] = 1e6
    for one, two in zip(model(tokens, context), model(tokens, changed), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("token", [-1, 20, 2**31 - 1, -(2**31)])
def test_a_token_outside_the_vocabulary_counts_as_padding(token: int) -> None:
    model = _seeded(ActionModel(length=8, vocabulary=20))
    tokens = torch.full((1, 8), 3, dtype=torch.int32)
    tokens[0, 2] = 0
    odd = tokens.clone()
    odd[0, 2] = token
    context = _noise(7, 1, 8, 3)
    assert torch.equal(model(odd, context)[0], model(tokens, context)[0])


def test_an_empty_history_gives_finite_outputs() -> None:
    model = _seeded(ActionModel(length=8, vocabulary=20))
    for value in model(torch.zeros(2, 8, dtype=torch.int32), torch.zeros(2, 8, 3)):
        assert torch.isfinite(value).all()


def _fusion_inputs(rows: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    image = torch.from_numpy(np.random.default_rng(8).integers(0, 256, (rows, 64, 64, 3), np.uint8))
    mask = (torch.arange(8) < torch.arange(rows)[:, None] * 2).float()
    return image, _noise(9, rows, 8, 5) * 30, mask


def test_padded_radar_points_have_no_influence_even_when_not_a_number() -> None:
    model = _seeded(FusionModel(height=64, width=64, points=8))
    image, radar, mask = _fusion_inputs()
    dirty = torch.where(mask[..., None] > 0.5, radar, torch.nan)
    for one, two in zip(model(image, radar, mask), model(image, dirty, mask), strict=True):
        assert torch.isfinite(two).all()
        torch.testing.assert_close(one, two)


def test_fusion_uses_both_sensors() -> None:
    model = _seeded(FusionModel(height=64, width=64, points=8))
    image, radar, mask = _fusion_inputs()
    distance = model(image, radar, mask)[1]
    assert _relative(model(image, radar * 3, mask)[1][1:], distance[1:]) > 1e-4
    assert torch.equal(model(image, radar * 3, mask)[1][0], distance[0])  # that row has no radar point
    assert _relative(model(255 - image, radar, mask)[1], distance) > 1e-3


def test_the_first_layer_holds_the_normalisation() -> None:
    """Folded into weights, ``(x - 128) / 64`` gives what normalising first gives."""
    model = CnnModel(height=32, width=32)
    _seeded(model)
    image = torch.from_numpy(np.random.default_rng(10).integers(0, 256, (2, 32, 32, 3), np.uint8))
    patch = model.stem.patch
    folded = patch(image.permute(0, 3, 1, 2).float())
    normalised = nn.functional.conv2d((image.permute(0, 3, 1, 2).float() - 128) / 64, patch.weight * 64, stride=4)
    assert _relative(folded, normalised) < 1e-5


@pytest.mark.parametrize("make", [MarketModel, ActionModel, CnnModel, FusionModel])
def test_reference_models_stay_small_and_start_alike(make: type[nn.Module]) -> None:
    one, two, other = _seeded(make(), 5), _seeded(make(), 5), _seeded(make(), 6)
    assert sum(p.numel() for p in one.parameters()) < 1_000_000
    pairs = list(zip(one.parameters(), two.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)


def test_initial_weights_come_from_philox_by_name() -> None:
    """Fixed values: a torch or numpy that draws differently would change every demo's results."""
    layer = nn.Linear(4, 4)
    initialise(layer, 7)
    import hashlib

    key = int.from_bytes(hashlib.sha256(b"weight").digest()[:8], "little")
    drawn = np.random.Generator(np.random.Philox(key=[7, key])).standard_normal((4, 4), np.float32) / np.float32(2)
    np.testing.assert_array_equal(layer.weight.detach().numpy(), drawn)
