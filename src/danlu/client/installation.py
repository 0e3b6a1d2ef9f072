"""`studio.system`: how the installation stands."""

from __future__ import annotations

from danlu.client.transport import Method, Noun
from danlu.services.platform import system


class System(Noun):
    """Queue, workers, disk, memory, alarms."""

    status = Method(system.get_system_status)
    alarms = Method(system.list_alarms)
