"""Registries of plsc in tests that add names to them."""

from __future__ import annotations


def forget_afterwards(monkeypatch, registry) -> None:
    """What is registered from now on is gone when the test ends; the built-in names are all there before."""
    registry.names()  # else those that the test imports would go with its own
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
