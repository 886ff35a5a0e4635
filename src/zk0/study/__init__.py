"""What federation gains: base, alone, pooled, federated and personalised models on the same scenes.

An *arm* is one way of training (:mod:`zk0.study.arms`), a *study* a set of arms
(:mod:`zk0.study.studies`), a *piece* one arm trained with one training seed and judged
(:mod:`zk0.study.runner`). Pieces are kept as they are made, and the page is rendered from them
(:mod:`zk0.study.page`).
"""
