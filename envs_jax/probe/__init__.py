"""Probe environments: small tasks with known values, each of which tests one part of a learner."""
