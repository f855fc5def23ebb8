"""From signals to rows, by format. Two halves, on both sides of the way to the workers.

Whoever cleans asks a format for the `payload` of each signal that counts: all that a row needs and
that is not in the records themselves. Workers make `rows` of it.

| format       | columns beside the common ones          | from                                   |
|--------------|-----------------------------------------|----------------------------------------|
| `supervised` | features, target, output                | all that says what the right answer is |
| `tabular`    | f_<name> ..., target, output            | the same                               |
| `preference` | prompt, chosen, rejected; and features  | comparisons, and edits                 |
| `reward`     | chosen, rejected, margin                | the same                               |
| `unpaired`   | prompt, completion, label               | judgements, flags and corrections      |
| `sft`        | prompt, completion                      | corrections                            |
"""

from online_learner.dataset.rows.common import Format, Said, Shape
from online_learner.dataset.rows.pairs import Preference, Reward
from online_learner.dataset.rows.single import Sft, Unpaired
from online_learner.dataset.rows.targets import Supervised, Tabular

FORMATS: dict[str, Format] = {
    "supervised": Supervised(),
    "tabular": Tabular(),
    "preference": Preference(),
    "reward": Reward(),
    "unpaired": Unpaired(),
    "sft": Sft(),
}

__all__ = ["FORMATS", "Format", "Said", "Shape"]
