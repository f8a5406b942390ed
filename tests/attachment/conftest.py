"""What the tests of compiled models share."""

import pytest
import torch


@pytest.fixture
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()
