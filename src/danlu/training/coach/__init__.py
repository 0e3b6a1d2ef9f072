"""The coach: tells from the numbers of a run what goes wrong, why, and which setting changes it. Needs no torch.

Live it listens to a reporter (`Coach`); on a finished run it reads the same files (`diagnose`) and says the same.
"""

from danlu.training.coach.diagnosis import Diagnosis
from danlu.training.coach.judge import diagnose
from danlu.training.coach.live import Coach

__all__ = ["Coach", "Diagnosis", "diagnose"]
