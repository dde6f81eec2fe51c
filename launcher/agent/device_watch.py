"""How this host's Ascend devices are while its processes run, as npu-smi tells it."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading

PERIOD_S = 15.0  # from one question to the next


class DeviceWatch:
    """Asks every PERIOD_S, in a thread: npu-smi takes up to two seconds, and with a sick driver for ever."""

    def __init__(self, devices: tuple[int, ...] = ()) -> None:
        """devices: ids of those that are used here; without any nothing is asked."""
        self._devices = devices
        self._told: dict = {}
        self._look: threading.Thread | None = None
        self._began_s = float("-inf")  # monotonic

    def news(self) -> dict | None:
        """`devices`: a fact of each (launcher/devices.py), or `unknown`: why not; None: nothing new."""
        if self._look is not None:
            if self._look.is_alive():
                return None
            self._look = None
            return self._told
        if self._devices and time.monotonic() - self._began_s >= PERIOD_S:
            self._begin()
        return None

    def _begin(self) -> None:
        import threading

        self._began_s = time.monotonic()
        self._look = threading.Thread(target=self._ask, daemon=True)
        self._look.start()

    def _ask(self) -> None:
        from launcher import devices
        from launcher.errors import Unreadable

        try:
            npus = devices.inventory().npus
            self._told = {"devices": [devices.fact(npu) for npu in npus if npu.id in self._devices]}
        except Unreadable as error:
            self._told = {"unknown": str(error)}
        except Exception as error:
            self._told = {"unknown": f"{type(error).__name__}: {error}"}
