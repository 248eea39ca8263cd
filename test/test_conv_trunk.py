"""The bundled model's own parts: merged normalisation and the shared position code."""

from __future__ import annotations

import copy

import pytest
import torch
from sam2.modeling.position_encoding import PositionEmbeddingSine

from mosam_ros.mosam.conv_trunk import ConvTrunk, SharedPosition

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def trunk() -> ConvTrunk:
    """A trunk whose normalisation has seen images, in evaluation mode."""
    torch.manual_seed(0)
    trunk = ConvTrunk((4, 8, 8, 8, 8))
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for _ in range(3):
            trunk(IMAGES)
    return trunk.eval()


def largest_difference(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


def test_merged_normalisation_gives_the_same_maps_in_the_usual_layout(trunk):
    weights = {name: value.clone() for name, value in trunk.state_dict().items()}
    plain = [x.detach() for x in trunk(IMAGES)]
    with torch.inference_mode():
        merged = trunk(IMAGES)
    assert 0 < largest_difference(plain, merged) < 1e-5
    assert all(x.is_contiguous() for x in merged)
    assert trunk.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in trunk.state_dict().items())


@pytest.mark.parametrize("change", ["load", "train", "convert"])
def test_weights_that_change_are_merged_anew(trunk, change):
    with torch.inference_mode():
        before = [x.clone() for x in trunk(IMAGES)]
    if change == "load":
        trunk.load_state_dict({k: v * 2 for k, v in trunk.state_dict().items()})
    elif change == "train":
        with torch.no_grad():
            trunk.train()(5 * IMAGES)
        trunk.eval()
    else:
        trunk.double()
    with torch.inference_mode():
        after = trunk(IMAGES.double() if change == "convert" else IMAGES)
        fresh = copy.deepcopy(trunk).train().eval()
        expected = fresh(IMAGES.double() if change == "convert" else IMAGES)
    assert largest_difference(after, expected) == 0
    assert largest_difference(after, before) > (0 if change == "convert" else 1e-2)


def test_gradients_reach_the_weights_in_evaluation_mode(trunk):
    with torch.no_grad():
        trunk(IMAGES)
    sum(x.sum() for x in trunk(IMAGES)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trunk.parameters())


def test_shared_position_is_sam2s_and_not_copied():
    shared = SharedPosition(num_pos_feats=16)
    with torch.inference_mode():
        first = shared(torch.zeros(3, 5, 6, 7))
    second = shared(torch.ones(1, 5, 6, 7))
    assert torch.equal(first, PositionEmbeddingSine(num_pos_feats=16)(torch.zeros(3, 5, 6, 7)))
    assert first.data_ptr() == second.data_ptr()
    assert not first.is_inference()
    assert shared(torch.zeros(1, 5, 2, 2)).shape == (1, 16, 2, 2)
