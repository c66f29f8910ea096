"""Wiring of metadet: settings, URLs, server and queue entry points. Nothing imports from here."""

__version__ = "0.1.0"
