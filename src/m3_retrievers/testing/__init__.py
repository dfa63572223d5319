"""What an index and an encoder have to do, as tests for pytest: the table of contents."""

import lazy_loader

from m3_retrievers.checks import require_package

require_package("pytest", module="pytest", extra="testing", purpose="m3_retrievers.testing")

import pytest  # noqa: E402

# before any of them is imported, so that a failed assert shows what it compared
_INDEX = ("agreement", "cases", "keeping", "searching", "filtering", "refusing", "lasting")
_FILES = ("encoder_contract", *_INDEX)
pytest.register_assert_rewrite(*(f"{__name__}.{file}" for file in _FILES))

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
