"""``python -m ascend_moe`` is the ``ascend-moe`` command."""

import sys

from ascend_moe.cli import main

sys.exit(main())
