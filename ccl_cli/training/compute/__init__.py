"""Computation: device, precision, memory, batch statistics and non-finite numbers."""
