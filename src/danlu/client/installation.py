"""`studio.system`, `studio.subscriptions`: how the installation stands, and who is told what."""

from __future__ import annotations

from danlu.client.transport import Method, Noun
from danlu.services.platform import notices, system


class System(Noun):
    """Queue, workers, disk, memory, alarms."""

    status = Method(system.get_system_status)
    alarms = Method(system.list_alarms)


class Subscriptions(Noun):
    """Who is told when runs end: webhooks and mail."""

    create = Method(notices.create_subscription)
    list = Method(notices.list_subscriptions)
    change = Method(notices.change_subscription)
    delete = Method(notices.delete_subscription)
    deliveries = Method(notices.list_deliveries)
