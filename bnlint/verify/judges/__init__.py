"""Measurements of one layer -> verdict and reason: pure functions, and the only place where thresholds stand.

Each kind of experiment has a *confirmed* and a *refuted* region with a gap of orders of magnitude between
them, so that floating-point noise and a small real effect are never told apart by a hair; what falls between
is *inconclusive*. A judge that returns None was given a number that is not finite: such a number is carried as
None and compares with nothing.
"""
