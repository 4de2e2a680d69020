"""A fixed list of operations, again and again: on CUDA as one graph in place of hundreds of launches.

A graph holds addresses, not values: whoever is replayed works on memory that stays where it is, and says by
a key what else may differ (shapes, and which operations). Knows nothing of what the operations do.
Invariant: they happen exactly once for each call, whether as they are, or from a graph.
"""

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import torch
from loguru import logger

RUNS_BEFORE = 2
"of a kind, in the usual way: libraries choose their kernels and take their memory then, which no graph may"


class Replay:
    """One owner's graphs. They share memory, for one runs after the other and none looks at another's."""

    def __init__(self, device: str) -> None:
        self._captures = device.startswith("cuda")
        self._graphs: dict[Hashable, Any] = {}
        self._runs: Counter[Hashable] = Counter()
        self._stream: Any = torch.cuda.Stream(device) if self._captures else None
        self._pool: Any = torch.cuda.graph_pool_handle() if self._captures else None

    def __call__(self, key: Hashable, operations: Callable[[], None]) -> None:
        """Have them done; the same key means the same operations on the same memory."""
        if not self._captures:
            operations()
            return
        self._runs[key] += 1
        if self._runs[key] <= RUNS_BEFORE:
            self._beside(operations)
            return
        if key not in self._graphs and not self._capture(key, operations):
            operations()
            return
        self._graphs[key].replay()

    def _beside(self, operations: Callable[[], None]) -> None:
        """On the stream on which they will be captured."""
        here = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            operations()
        here.wait_stream(self._stream)

    def _capture(self, key: Hashable, operations: Callable[[], None]) -> bool:
        """Keep a graph of them, not yet run; False, and no further try, where driver or torch refuses."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                operations()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._captures = False
            logger.warning(
                "CUDA graphs cannot be used here, and speech takes longer without them: {}",
                str(error).splitlines()[0],
            )
            return False
        self._graphs[key] = graph
        return True
