"""`make bench`: every figure but the long ones (`make bench-drops`, `python -m bench.checks`) and those of
the models (`python -m bench.fast`, `python -m bench.turns`)."""

import os
import platform
import time

from bench import idle, spine, whole
from pipeline.sound.ffmpeg import ffmpeg_version


def main() -> None:
    """Print where and when, then the figures."""
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} processors,")
    print(f"Python {platform.python_version()}, ffmpeg {ffmpeg_version()}")
    idle.main()
    spine.main()
    whole.main()


if __name__ == "__main__":
    main()
