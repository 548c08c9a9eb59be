# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for a condition: the only place of the system tests that lets time pass."""

import os
import threading
import time

# Sanitizer builds and busy machines stretch everything; one factor serves all waits.
PATIENCE = float(os.environ.get("MOAT_TEST_PATIENCE", "1"))

_never = threading.Event()


def wait_for(condition, timeout=5.0, what=None, every=0.01):
    """Return the first true value of condition(); fail with `what` after timeout seconds."""
    deadline = time.monotonic() + timeout * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            text = what() if callable(what) else what
            raise AssertionError(f"not within {timeout:g} s: {text or 'the awaited condition'}")
        _never.wait(every)


def stays(condition, seconds, what=None, every=0.01):
    """Check that condition() holds for a whole while: for what must *not* happen."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), what or "the condition did not last"
        _never.wait(every)


class Stopwatch:
    """with Stopwatch() as w: …; w.ms is how long the block took."""

    def __enter__(self):
        self._start = time.monotonic()
        self.ms = None
        return self

    def __exit__(self, *exc):
        self.ms = self.lap_ms()
        return False

    def lap_ms(self):
        return (time.monotonic() - self._start) * 1000
