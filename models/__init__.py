"""Models: one shared transformer that follows any plan.

This room will know plans, tokens and weights. It refuses to know an order's name and any file of results.
Empty for now: see docs/architecture.md for what comes here.

Tensor names carry shape suffixes. The key, for the whole project: B batch, L cells, G cells decoded this step, M cells
known so far, D model width, H heads, K head size, V vocabulary, F feed-forward width, R and C rows and columns of the
token grid, lower-case c, h, w channels and pixels. `logits_BGV`, `known_BL`, `image_Bchw`.
"""
