"""The records that flow through the loop: what was answered, what was said of it, what was decided.

They ignore keys that they do not know, so that two releases can read one stream during an upgrade.
"""

from online_learner.schema.answering import (
    Ask,
    Audit,
    Flag,
    Option,
    Prediction,
    Served,
    Shadow,
)
from online_learner.schema.archiving import Segment
from online_learner.schema.deciding import (
    Action,
    Alarm,
    Aliases,
    GateState,
    Move,
    Settled,
    Verdict,
)
from online_learner.schema.learning import (
    Checkpoint,
    Registered,
    Status,
    Step,
    Trained,
    Version,
    Weighed,
)
from online_learner.schema.observing import (
    Advice,
    Observed,
    Raised,
    Sighting,
    place_of,
)
from online_learner.schema.scaling import Scaling
from online_learner.schema.telling import (
    Control,
    Example,
    Feedback,
    Lesson,
    Ranked,
    Rated,
    Said,
    Signal,
)
from online_learner.schema.values import (
    Label,
    Output,
    Record,
    Severity,
    Task,
    canonical,
    finite,
    label_key,
    pack,
)

__all__ = [
    "Action",
    "Advice",
    "Alarm",
    "Aliases",
    "Ask",
    "Audit",
    "Checkpoint",
    "Control",
    "Example",
    "Feedback",
    "Flag",
    "GateState",
    "Label",
    "Lesson",
    "Move",
    "Observed",
    "Option",
    "Output",
    "Prediction",
    "Raised",
    "Ranked",
    "Rated",
    "Record",
    "Registered",
    "Said",
    "Scaling",
    "Segment",
    "Served",
    "Settled",
    "Severity",
    "Shadow",
    "Sighting",
    "Signal",
    "Status",
    "Step",
    "Task",
    "Trained",
    "Verdict",
    "Version",
    "Weighed",
    "canonical",
    "finite",
    "label_key",
    "pack",
    "place_of",
]
