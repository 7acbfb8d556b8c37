import pytest

from kernels.proof.simulator import library


@pytest.fixture(scope="session")
def proof_library(compiler):
    """The proof library, built once for the session."""
    return library()
