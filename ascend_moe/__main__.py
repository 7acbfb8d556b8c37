"""python -m ascend_moe is ascend-moe."""

import sys

from ascend_moe.cli import main

sys.exit(main())
