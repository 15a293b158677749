"""Measure how well boxes, counts, grades, masks and classes agree with the truth.

Everything here is a pure function over arrays.
"""
