"""Losses: each reads streams of rows and returns a named part of the objective."""

LOSSES = {
    "language_modelling": "guidebook.losses.language_modelling:LanguageModelling",
    "task": "guidebook.losses.task:TaskLoss",
    "divergence": "guidebook.losses.divergences:Divergence",
    "adversarial": "guidebook.losses.adversarial:Adversarial",
}
