"""`python -m tests.before.ask MODULE FUNCTION`: one question, of the tree that PYTHONPATH names.

The last line says whether the fault is there, `true` or `false`; a traceback is no answer.
"""

import importlib
import json
import logging
import sys

from tests.before.findings import ALL


def main() -> int:
    """Ask."""
    module, function = sys.argv[1:]
    logging.disable()
    importlib.import_module(module)
    asked = next(one for one in ALL if one.question.__name__ == function)
    print(json.dumps(asked.is_there()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
