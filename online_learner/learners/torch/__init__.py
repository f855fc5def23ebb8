"""Learners that need torch: heads over text, embeddings and mixed features, and rankers.

    features -> encode, readers (what is seen) -> layers (weighted sums) -> goals (losses, answers)

`head` is what all heads have in common, `layered` makes the built-in ones, `module` serves a
`torch.nn.Module` of your own; `pairs` and `ranking` are the ranker. `tensors` knows where they
compute and how they travel.
"""
