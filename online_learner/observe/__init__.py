"""Beside the stages: look on, at who speaks, who is silent, and whether the world has moved.

Observers (`policies.lens`) are told of three flows, each in its order: answers once their window is
over, whether anybody spoke of them or not; signals as they were accepted; audits as they settled.
What they find is reported. Some of it takes effect, and every effect is an entry somewhere:

* a *table* for the learner is an entry of the feedback stream, so that what was weighed by it is
  weighed the same in a replay;
* *advice* for those who answer is sealed like all else that they load;
* an *alarm* is an entry of the stream of alarms.

There is no fence: state, places and effects are written by one script, unless another process has
written since; who is too late drops what it found, and goes on from where the other stands.
"""
