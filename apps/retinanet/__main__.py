"""``python -m apps.retinanet COMMAND``."""

import sys

from apps.common.process import tune

tune()  # before torch, which these import

from apps.common.app import App  # noqa: E402
from apps.common.main import main  # noqa: E402
from apps.retinanet.config import RECIPES  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(App(name="retinanet", recipes=RECIPES)))
