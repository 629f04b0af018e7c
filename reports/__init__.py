"""Reports: pictures, tables and pages, drawn from plans and records alone.

Refuses to know torch, weights and clocks: it works on a laptop that has none of them. For now it draws plans.
"""
