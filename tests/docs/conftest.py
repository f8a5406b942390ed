"""Plain PyTorch, whose bits are those of the compiled kernels: a page's few tokens are not worth their compilation."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def without_compilation():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARMLET_BACKEND", "torch")
        yield
