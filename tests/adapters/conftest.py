"""What the tests of both frameworks share."""

from pathlib import Path

import pytest

from m3_retrievers import M3Encoder


@pytest.fixture(scope="session")
def encoder(tiny_m3: Path) -> M3Encoder:
    """One tiny model with all three outputs."""
    return M3Encoder.from_pretrained(tiny_m3)
