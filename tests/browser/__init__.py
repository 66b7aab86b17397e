import pytest

pytest.register_assert_rewrite("tests.browser.looking")  # what it finds is told as in a test
