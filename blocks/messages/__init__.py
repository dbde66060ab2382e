"""Helpers for messages: foreign text made safe to print, long lists cut short, passwords masked."""
