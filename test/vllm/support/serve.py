"""`vllm` with its arguments, ending with the test that started it.

    python serve.py serve MODEL …
"""

import lifeline

if __name__ == "__main__":
    lifeline.hold()
    from vllm.entrypoints.cli.main import main

    main()
