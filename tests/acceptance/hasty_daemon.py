"""The daemon with less patience: it looks and tells more often, so that tests of waiting are quick.

Each worker runs these lines too, since it is started fresh from this file.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import daemon
from pipeline import status, supervisor, worker
from pipeline.intake import readiness, watch

status.WRITE_SECONDS = 0.3
supervisor.TICK_SECONDS = 0.2
supervisor.START_PATIENCE_SECONDS = 0.5
supervisor.ONCE_PATIENCE_SECONDS = 2.0
readiness.LOOK_SECONDS = 0.3
watch.ROOT_RETRY_SECONDS = 0.5
worker.LOOK_AGAIN_SECONDS = 0.3
worker.ENVIRONMENT_WAIT_SECONDS = 1.0

if __name__ == "__main__":
    sys.exit(daemon.run(sys.argv[1:]))
