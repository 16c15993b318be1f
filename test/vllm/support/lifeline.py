"""An engine does not outlive the test that started it: standard input is held open by the test, and its end ends the
process group, so that the workers of a tensor-parallel engine go too, however the test ended."""

import os
import queue
import signal
import sys
import threading


def hold():
    """The lines of standard input, as a queue; its end kills the group. The caller leads a process group of its own."""
    lines = queue.SimpleQueue()

    def watch():
        for line in sys.stdin:
            lines.put(line)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    return lines
