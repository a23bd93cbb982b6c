"""Plugins that lie outside of the package, for the tests."""
