"""Take back what was said: at once on file, and a little later out of the weights.

`retract` marks signals as taken back, and tells the learner by a `retract` entry of the feedback
stream. `unlearn` rebuilds the weights beside the learner, along the recorded steps, as though these
signals had never been said; an `unlearn` entry then has the learner put them in the place of its
own. Kept versions that had learned from them are learned anew in the same pass.
"""
