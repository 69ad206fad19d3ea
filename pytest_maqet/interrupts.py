"""An interrupted run ends its VMs at once, whatever their `teardown:` says.

Of Ctrl-C at a terminal a user expects an end. Where only xdist's controller is interrupted, execnet lets a
worker go on for 5 s, interrupts it, and kills it some 3 to 4 s later: a guest that is asked to shut down
would not make it, and what is killed in its teardown tells nothing.
"""

from __future__ import annotations

import pytest

from pytest_maqet.session import MaqetSession


class Interrupts:
    """Tells the session of an interrupt: pytest's hook does not say which session it is about."""

    def __init__(self, session: MaqetSession) -> None:
        self._session = session

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Before pytest tears down what the interrupted test has left.

        pytest calls it for `pytest.exit` and a session that stops itself, too: they have time.
        """
        if excinfo.type is KeyboardInterrupt:
            self._session.interrupt()
