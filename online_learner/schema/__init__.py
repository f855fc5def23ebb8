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
    Version,
)
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
    "Option",
    "Output",
    "Prediction",
    "Ranked",
    "Rated",
    "Record",
    "Registered",
    "Said",
    "Served",
    "Settled",
    "Severity",
    "Shadow",
    "Signal",
    "Status",
    "Step",
    "Task",
    "Verdict",
    "Version",
    "canonical",
    "finite",
    "label_key",
    "pack",
]
