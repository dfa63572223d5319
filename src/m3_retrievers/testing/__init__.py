"""The contract that an index has to keep, for pytest: see ``IndexContract``."""

import lazy_loader

from m3_retrievers.checks import require_package

require_package("pytest", module="pytest", extra="testing", purpose="m3_retrievers.testing")

import pytest  # noqa: E402

# before any of them is imported, so that a failed assert shows what it compared
_FILES = ("agreement", "cases", "keeping", "searching", "filtering", "refusing", "lasting")
pytest.register_assert_rewrite(*(f"{__name__}.{file}" for file in _FILES))

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
