"""The reading of a padded network without patches, in the one case in which it has to agree with patches."""

import pytest
import torch
from pydantic import TypeAdapter

import hsi_se
from benchmarks.patch_free import NETWORKS, count_shared, map_patch_free
from hsi_se.config.model import ModelSettings

SIZES = {"num_bands": 5, "patch_size": 13, "num_classes": 3}


@pytest.mark.parametrize("name", NETWORKS)
def test_without_gates_a_patch_alone_in_the_scene_has_the_same_logits(name):
    """Around the patch are zeros, as its own padding has; strides and their dilation see the same locations."""
    settings = TypeAdapter(ModelSettings).validate_python({"name": name, "stem": "small", "attention": {}})
    model = hsi_se.build_model(settings, **SIZES).eval()
    patch = torch.randn(1, 1, 5, 13, 13, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = model(patch), map_patch_free(model, patch[0, 0].permute(1, 2, 0))
    assert found.shape == (1, 1, 3)
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert 0 < count_shared(model) < 0.1
