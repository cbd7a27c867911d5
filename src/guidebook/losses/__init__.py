"""Losses: each reads streams of rows and returns a named part of the objective."""

LOSSES = {
    "language_modelling": "guidebook.losses.language_modelling:LanguageModelling",
    "task": "guidebook.losses.task:TaskLoss",
    "divergence": "guidebook.losses.divergences:Divergence",
    "soft_task": "guidebook.losses.soft_task:SoftTaskLoss",
    "distillation": "guidebook.losses.distillation:Distillation",
    "contrastive": "guidebook.losses.contrastive:Contrastive",
    "adversarial": "guidebook.losses.adversarial:Adversarial",
}
