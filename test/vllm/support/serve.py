"""`vllm` with its arguments, ending with the test that started it.

    python serve.py serve MODEL …
"""

import lifeline
import no_accelerator

# Also in the engine's processes, which begin with this module where they are not forked.
no_accelerator.patch()

if __name__ == "__main__":
    lifeline.hold()
    from vllm.entrypoints.cli.main import main

    main()
