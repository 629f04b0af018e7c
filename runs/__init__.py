"""Runs: the command line, and the one room with a clock and a store of results.

Knows what was asked, what happened and on what machine. Refuses to know how an order ranks or how a network computes.
"""
