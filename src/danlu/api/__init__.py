"""The REST door: /api/v1, made from the operations of services.platform."""
