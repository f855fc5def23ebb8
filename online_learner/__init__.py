"""An online incremental learner for explicit feedback. Read `online_learner.loop` first."""
