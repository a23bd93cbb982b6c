"""Layers and checks that several model families share."""
