"""The daemon with small models: `small_daemon.py ARGUMENTS`, as `daemon.py`.

Each worker runs these lines too, since it is started fresh from this file, and loads the checkpoints that
`checkpoints` builds; the supervisor must not import the models' packages, so it is spared.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import daemon
from pipeline import supervisor, worker

supervisor.TICK_SECONDS = 0.2
worker.LOOK_AGAIN_SECONDS = 0.3
worker.ENVIRONMENT_WAIT_SECONDS = 1.0

if __name__ == "__main__":
    sys.exit(daemon.run(sys.argv[1:]))
elif __name__ == "__mp_main__":
    from tests.models import checkpoints

    small = checkpoints.small_models()  # kept: it ends when it is forgotten
    small.__enter__()
